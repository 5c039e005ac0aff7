"""What decides: baselines, networks and the algorithms that train them."""
