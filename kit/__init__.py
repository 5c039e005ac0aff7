"""Floor 0: what every room needs and nobody owns. Nothing about trading."""
