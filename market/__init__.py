"""Floor 1: bars. Sources, quality, the panel, features, and the built-in market."""
