"""Causal features of finite memory: a specification is data, and makes [T, A, F] of a panel."""

import pkgutil
from importlib import import_module

from market.features.scaler import Scaler
from market.features.spec import Features, FeatureSpec

for _file in pkgutil.iter_modules(__path__):  # each registers its own
    import_module(f"{__name__}.{_file.name}")

__all__ = ["FeatureSpec", "Features", "Scaler"]
