"""A covariance that can be inverted, and the best long-only weights under it."""

from __future__ import annotations

import numpy as np

LEAST_SHRINKAGE = 1e-8  # so that it can be inverted even where assets move as one


def ledoit_wolf(returns: np.ndarray) -> tuple[np.ndarray, float]:  # [n, A] -> [A, A]
    """The sample covariance shrunk towards equal variances without correlation, and by what share.

    The share is Ledoit and Wolf's (2004): the sampling error of the sample covariance over its
    distance from that target, both as sums of squares over the entries.
    """
    bars, assets = returns.shape
    apart = returns - returns.mean(axis=0)
    sample = apart.T @ apart / bars
    variance = np.trace(sample) / assets
    squares = float((sample**2).sum())
    distance = squares - assets * variance**2
    error = (float(((apart**2).sum(axis=1) ** 2).mean()) - squares) / bars
    share = float(np.clip(error / distance, LEAST_SHRINKAGE, 1.0)) if distance > 0 else 1.0
    shrunk = (1.0 - share) * sample
    shrunk[np.diag_indices(assets)] += share * variance
    return shrunk, share


def long_only(covariance: np.ndarray, reward: np.ndarray) -> np.ndarray:  # [A, A], [A] -> [A]
    """Weights, none negative and summing to 1, with the most reward per unit of volatility.

    A `reward` of ones gives the least variance. Some entry must be positive. Up to its length the
    answer is the y >= 0 that minimises y'Cy/2 - reward'y: with C = LL', least squares in L'y, which
    the active sets of Lawson and Hanson solve to rounding.
    """
    from scipy.linalg import cholesky, solve_triangular  # these take half a second to load, and few need them
    from scipy.optimize import nnls

    assert (reward > 0).any(), "no asset is worth holding"
    lower = cholesky(covariance / np.diag(covariance).mean(), lower=True)
    goal = solve_triangular(lower, reward / np.abs(reward).max(), lower=True)
    weights = nnls(lower.T, goal)[0]
    return weights / weights.sum()
