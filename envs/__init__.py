"""Floor 2: the vectorised environment. Allocation, fills, costs, rewards, episodes, and the backtest."""
