"""Speed and learning, side by side with the peers, in one run and in one form of result."""
