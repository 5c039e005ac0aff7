"""Does the desk do what was promised? Its journal against the backtest of the same bars. A process of its own."""
