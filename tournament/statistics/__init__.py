"""What luck alone would have done: pure functions on NumPy arrays of returns per day."""
