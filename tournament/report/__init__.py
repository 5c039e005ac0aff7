"""The report of a tournament: one HTML page that needs no other file."""
