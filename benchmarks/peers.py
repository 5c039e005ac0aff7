"""The peers' environments, loaded as installed and fed the same prices and indicators.

ElegantRL is a dependency. FinRL comes with the `bench` extra and is loaded by the path of its file,
because importing the package pulls in clients that have nothing to do with its environments.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd


def elegantrl_numpy(prices: np.ndarray, indicators: np.ndarray) -> Any:  # [T, A], [T, A * F]
    """ElegantRL's StockTradingEnv: one environment in NumPy."""
    module = importlib.import_module("elegantrl.envs.StockTradingEnv")
    return _with_data(module.StockTradingEnv, prices, indicators)(beg_idx=0, end_idx=len(prices))


def elegantrl_vec_repaired(prices: np.ndarray, indicators: np.ndarray, num_envs: int) -> Any:
    """ElegantRL's StockTradingVecEnv, with the line that overwrites every action put right."""
    module = importlib.import_module("elegantrl.envs.StockTradingEnv")
    source = textwrap.dedent(inspect.getsource(module.StockTradingVecEnv.step))
    mended, found = re.subn(r"torch\.ones_like\(action\)", "action.clone()", source)
    assert found == 1, "ElegantRL's step is not the one that this repair was written for"
    namespace: dict[str, Any] = {}
    exec(mended, vars(module), namespace)
    stock = module.StockTradingVecEnv
    repaired = type("RepairedVecEnv", (stock,), {"step": namespace["step"]})
    return _with_data(repaired, prices, indicators)(num_envs=num_envs, beg_idx=0, end_idx=len(prices), gpu_id=-1)


def elegantrl_agent(kind: str, state_dim: int, action_dim: int, net: tuple[int, ...], **settings: Any) -> Any:
    """One of ElegantRL's own agents on the CPU; `settings` are its configuration's."""
    stock = getattr(importlib.import_module(f"elegantrl.agents.Agent{kind}"), f"Agent{kind}")
    shape = {"env_name": "peer", "state_dim": state_dim, "action_dim": action_dim, "if_discrete": False}
    config = importlib.import_module("elegantrl.train.config").Config(stock, None, shape)
    for name, value in settings.items():
        setattr(config, name, value)
    return stock(net, state_dim, action_dim, gpu_id=-1, args=config)


def elegantrl_buffer(size: int, state_dim: int, action_dim: int, num_envs: int) -> Any:
    return importlib.import_module("elegantrl.train.replay_buffer").ReplayBuffer(
        size, state_dim, action_dim, gpu_id=-1, num_envs=num_envs
    )


def finrl_pandas(prices: np.ndarray, indicators: np.ndarray) -> Any:
    """FinRL's StockTradingEnv, on the long table with a row per day and symbol that it asks for."""
    bars, assets = prices.shape
    names = [f"indicator_{k}" for k in range(indicators.shape[1] // assets)]
    days = np.repeat(np.arange(bars), assets)
    dates = pd.bdate_range("2010-01-04", periods=bars).strftime("%Y-%m-%d").to_numpy()
    table = pd.DataFrame({"date": dates[days], "tic": np.tile([f"S{i:03}" for i in range(assets)], bars)}, index=days)
    table["close"] = prices.reshape(-1)
    table[names] = indicators.reshape(bars * assets, len(names))
    return _finrl("env_stocktrading").StockTradingEnv(
        df=table,
        stock_dim=assets,
        hmax=100,
        initial_amount=1_000_000,
        num_stock_shares=[0] * assets,
        buy_cost_pct=[0.001] * assets,
        sell_cost_pct=[0.001] * assets,
        reward_scaling=1e-4,
        state_space=1 + 2 * assets + len(names) * assets,
        action_space=assets,
        tech_indicator_list=names,
        print_verbosity=10**9,
    )


def finrl_numpy(prices: np.ndarray, indicators: np.ndarray) -> Any:
    """FinRL's NumPy environment, the one that it trains ElegantRL with."""
    config = {
        "price_array": prices,
        "tech_array": indicators,
        "turbulence_array": np.zeros(len(prices)),
        "if_train": True,
    }
    return _finrl("env_stocktrading_np").StockTradingEnv(config)


def has_finrl() -> bool:
    return importlib.util.find_spec("finrl") is not None


def _finrl(name: str) -> ModuleType:
    package = importlib.util.find_spec("finrl")
    assert package is not None
    assert package.submodule_search_locations
    file = Path(package.submodule_search_locations[0]) / "meta" / "env_stock_trading" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"finrl_{name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _with_data(kind: type, prices: np.ndarray, indicators: np.ndarray) -> Any:
    """The class with the loading of its Chinese sample file replaced by ours."""

    def load_data_from_disk(self: Any, tech_id_list: Any = None) -> tuple[np.ndarray, np.ndarray]:
        return prices.astype(np.float32), indicators.astype(np.float32)

    return type(kind.__name__, (kind,), {"load_data_from_disk": load_data_from_disk})
