"""Causal features of finite memory: a specification is data, and makes [T, A, F] of a panel."""

from market.features import clock, cross, observed, oscillators, price, volume  # noqa: F401  each registers its own
from market.features.scaler import Scaler
from market.features.spec import Features, FeatureSpec

__all__ = ["FeatureSpec", "Features", "Scaler"]
