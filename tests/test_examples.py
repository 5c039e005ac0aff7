"""Every example runs, fits its seam, and goes into its room by the steps that docs/extending.md shows."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import agent_conformance
import feature_conformance
import numpy as np
import pytest
import source_conformance
import torch
from broker_conformance import BrokerConformance
from markets import NO_COSTS, priced, tensors
from panels import constant_panel, with_arrays
from small import here, runner

from agents.build import AGENTS
from envs.config import EnvConfig, RewardConfig
from envs.rewards import TERMS
from envs.trading import TradingEnv
from kit.errors import UserError
from market import __main__ as market_command
from market.features import FeatureSpec
from market.features.transform import REGISTRY
from market.synth import SynthSource, generate
from paper.broker import Request
from podracer.provenance import ROOMS, code_hash
from tournament.__main__ import main as tournament_command

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
GUIDE = (ROOT / "docs" / "extending.md").read_text()


@pytest.fixture(autouse=True)
def _nothing_stays_registered() -> Iterator[None]:
    with patch.dict(REGISTRY), patch.dict(TERMS), patch.dict(AGENTS):
        yield
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


def example(name: str) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def printed(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    example(name).main()
    return capsys.readouterr().out


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"[-+]?\d+\.\d+", text)]


# -- each by itself


def test_the_feature_fits_and_runs(capsys):
    transform = example("own_feature").CloseLocation(window=7)
    for claim in (
        feature_conformance.has_a_name_and_a_float32_for_each_value,
        feature_conformance.does_not_see_the_future,
        feature_conformance.forgets_what_is_older_than_its_warmup,
        feature_conformance.is_zero_before_listing_and_finite_after,
        feature_conformance.does_not_know_when_a_symbol_will_list,
        feature_conformance.does_not_depend_on_the_price_scale,
        feature_conformance.gives_one_value_for_constant_prices,
        feature_conformance.stands_still_once_prices_do,
        feature_conformance.bears_zero_and_missing_volume,
        feature_conformance.treats_symbols_alike,
        feature_conformance.gives_the_same_twice,
        feature_conformance.survives_its_configuration,
    ):
        claim(transform)
    assert "close_location_5" in printed("own_feature", capsys)


def test_the_feature_is_minus_1_at_the_low_and_a_half_three_quarters_of_the_way_up():
    panel, spec = constant_panel(bars=40), FeatureSpec((example("own_feature").CloseLocation(3),))
    for above, below, place in ((2.0, 0.0, -1.0), (0.0, 2.0, 1.0), (1.0, 3.0, 0.5)):
        made = with_arrays(panel, high=panel.high + above, low=panel.low - below)
        np.testing.assert_allclose(spec.compute(made).values[2:], place)


def test_the_reward_is_weighed_by_the_setting_of_its_name():
    """Weights .5, .1 and .4 of cash differ from their mean, .3, by .2 each: a penalty of .08."""
    module = example("own_reward")
    market = tensors(priced(np.full((20, 2), 50.0)), "long_short", costs=NO_COSTS, rate=1.0, name_cap=1.0)
    action = torch.tensor([[0.5, 0.1, 0.0]], dtype=torch.float64)
    paid = []
    for weight in (0.0, 0.5):
        config = EnvConfig(module.SpreadOut(log_growth=1.0, concentration=weight))
        paid.append(TradingEnv(market, config, 1, random_start=False).step(action)[1].item())
    assert paid == pytest.approx([0.0, -0.04])
    usual = TradingEnv(market, EnvConfig(RewardConfig()), 1, random_start=False)
    assert usual.step(action)[1].item() == pytest.approx(0.0), "who has no such setting pays nothing for it"


def test_a_price_on_concentration_makes_weights_more_alike(capsys):
    free, dear = printed("own_reward", capsys).splitlines()
    assert numbers(dear.partition("differ by")[2])[0] < 0.5 * numbers(free.partition("differ by")[2])[0]


@pytest.mark.parametrize("claim", agent_conformance.CLAIMS, ids=lambda claim: claim.__name__)
def test_the_algorithm_fits(claim: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("own_algorithm")
    AGENTS["evolution"] = module.AgentEvolution
    claim(agent_conformance.quick(module.EvolutionConfig()))


def test_the_algorithm_learns(capsys: pytest.CaptureFixture[str]) -> None:
    module = example("own_algorithm")
    AGENTS["evolution"] = module.AgentEvolution
    agent_conformance.learns(module.EvolutionConfig())
    module.main()
    ours, standard = numbers(capsys.readouterr().out)
    assert ours > standard + 1.0


def test_the_algorithms_tries_are_its_policy_with_changed_weights():
    """Its first action in every group is that of the network to which the change was added by hand."""
    module, world = example("own_algorithm"), agent_conformance.market()
    config = module.EvolutionConfig(num_envs=8, together=4, horizon=1)
    agent = module.AgentEvolution(world, config, agent_conformance.SMALL, seed=1)
    env, seen = TradingEnv(world, None, 8, slice(20, 200), seed=2, together=4), []
    agent.last_state = env.reset()
    bar, portfolio = agent.last_state[:, 0].long(), agent.last_state[:, 1:]
    step = env.step
    env.step = lambda action: seen.append(action) or step(action)  # type: ignore[assignment, func-returns-value]
    changes = agent.explore_vec_env(env, 1).changes
    both = torch.cat([changes, -changes])
    start = torch.nn.utils.parameters_to_vector(agent.policy.parameters()).detach()
    for number in range(8):
        changed = start + config.change * both[number % 4]
        torch.nn.utils.vector_to_parameters(changed, agent.policy.parameters())
        wanted = agent.policy(world, bar[number : number + 1], portfolio[number : number + 1])
        torch.testing.assert_close(seen[0][number : number + 1], wanted)


def test_the_source_fits_and_what_is_wrong_is_named(tmp_path, capsys):
    module = example("own_source")
    module.write(SynthSource(symbols=3, bars=50), tmp_path / "bars.sqlite")
    bars = source_conformance.conforms(module.SqliteSource(tmp_path / "bars.sqlite"))
    assert bars.symbols == ("SYN00", "SYN01", "SYN02")
    np.testing.assert_array_equal(bars.column("close"), generate(SynthSource(symbols=3, bars=50)).close.flat)
    for source, text in (
        (module.SqliteSource(tmp_path / "none.sqlite"), "no such file"),
        (module.SqliteSource(tmp_path / "bars.sqlite", table="other"), "no such table: other"),
    ):
        with pytest.raises(UserError, match=text):
            source.read()
    assert "300 bars of SYN00, SYN01, SYN02, beside them signal" in printed("own_source", capsys)


class TestTheBrokerFits(BrokerConformance):
    @pytest.fixture
    def broker(self) -> Iterator[Any]:
        broker = example("own_broker").MemoryBroker(generate(SynthSource(symbols=3, bars=80)), bar=30)
        yield broker
        broker.close()

    @pytest.fixture
    def symbols(self) -> list[str]:
        return ["SYN00", "SYN01"]

    @pytest.fixture
    def span(self) -> tuple[datetime, datetime]:
        return datetime(2000, 1, 10, tzinfo=UTC), datetime(2000, 2, 1, tzinfo=UTC)

    @pytest.fixture
    def settle(self, broker: Any) -> Callable[[], None]:
        advance: Callable[[], None] = broker.advance
        return advance


def test_the_broker_gives_no_credit_and_runs(capsys):
    broker = example("own_broker").MemoryBroker(generate(SynthSource(symbols=3, bars=80)), 30, Decimal(100))
    broker.submit(Request("much", "SYN00", "buy", Decimal(1000)))
    broker.submit(Request("short", "SYN01", "sell", Decimal(1)))
    broker.advance()
    assert [broker.order(id).status for id in ("much", "short")] == ["rejected", "rejected"]
    assert (broker.account().cash, broker.positions()) == (100, {})
    assert "status='filled'" in printed("own_broker", capsys)


# -- a CSV to a verdict, and the run looked into


@pytest.fixture(scope="module")
def own_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of examples/own_csv/README.md, one after the other; trials run in this process."""
    folder = tmp_path_factory.mktemp("own")
    (commands,) = re.findall(r"```console\n(.*?)```", (EXAMPLES / "own_csv" / "README.md").read_text(), re.DOTALL)
    rooms = {"market": market_command.main, "tournament": tournament_command}
    with pytest.MonkeyPatch.context() as monkeypatch:
        here(monkeypatch, runner())
        monkeypatch.chdir(folder)
        monkeypatch.setenv("WANDB_MODE", "disabled")
        for line in commands.replace("PODRACER", str(ROOT)).splitlines():
            words = shlex.split(line)
            if words[0] == "cp":
                shutil.copy(*words[1:])
                continue
            assert words[:2] == ["python", "-m"], line
            monkeypatch.setattr(sys, "argv", words[2:])
            assert not rooms[words[2]](*([words[3:]] if words[2] == "tournament" else [])), line
    return folder


def test_a_csv_comes_to_a_verdict(own_csv):
    verdict = json.loads((own_csv / "run" / "bundle.verdict.json").read_text())
    assert verdict["openings"] == 1
    assert verdict["outcome"] in ("better than equal weight", "not better than equal weight")
    assert (own_csv / "bars.csv").read_text().startswith("timestamp,symbol,open,high,low,close,volume,signal")
    assert (own_csv / "bars.html").is_file() and (own_csv / "run" / "report.html").is_file()


def test_the_notebook_runs_over_a_finished_run_and_is_kept_without_outputs(own_csv, monkeypatch):
    notebook = json.loads((EXAMPLES / "explore.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    monkeypatch.setenv("PODRACER_RUN", str(own_csv / "run"))
    monkeypatch.chdir(own_csv)
    names: dict[str, Any] = {}
    for cell in cells:
        exec("".join(cell["source"]), names)
    board, returns = names["leaderboard"], names["returns"]
    assert len(board) == 4
    leader = board.iloc[0]
    year = names["panel"].bars_per_year
    ours, standard = (names["sharpe"](returns[name].to_numpy(), year) for name in (leader["candidate"], "equal weight"))
    assert ours == pytest.approx(leader["sharpe"]) and ours - standard == pytest.approx(leader["edge"])
    assert names["held"].sum(axis=1).to_numpy() == pytest.approx(1.0)
    assert "<svg" in names["Figure"]("<svg></svg>")._repr_html_()


# -- the guide


def test_what_the_guide_shows_of_examples_stands_in_them():
    """But for how far the lines are indented, and for empty ones."""

    def bare(text: str) -> str:
        return "\n".join(line.strip() for line in text.splitlines() if line.strip())

    sources = [bare(file.read_text()) for file in EXAMPLES.glob("own_*.py")]
    blocks = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        assert any(bare(block) in source for source in sources), block


def patched(folder: Path) -> None:
    """Do in a copy of the rooms what the guide says: its `cp` lines and its diffs."""
    for source, target in re.findall(r"^cp (\S+) (\S+)$", GUIDE, re.MULTILINE):
        shutil.copy(ROOT / source, folder / target)
    for block in re.findall(r"```diff\n(.*?)```", GUIDE, re.DOTALL):
        for path, changes in re.findall(r"--- (\S+)\n(.*?)(?=--- |\Z)", block, re.DOTALL):
            text = (folder / path).read_text()
            for hunk in changes.split("@@\n"):
                before, after = (
                    "\n".join(line[1:] for line in hunk.splitlines() if line[0] in signs) for signs in (" -", " +")
                )
                assert text.count(before) == 1, f"{path}: {before!r}"
                text = text.replace(before, after)
            (folder / path).write_text(text)


def test_parts_put_into_their_rooms_by_the_guide_are_named_in_configurations(tmp_path):
    for room in (*ROOMS, "tournament"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    patched(tmp_path)
    example("own_source").write(SynthSource(symbols=3, bars=400, ic=0.3), tmp_path / "bars.sqlite")
    (tmp_path / "own.yaml").write_text(
        "data: {source: {kind: sqlite, path: bars.sqlite}}\n"
        "features: [{log_return: {horizons: [1, 5]}}, {close_location: {window: 5}}, observed]\n"
        "candidate:\n"
        "  algorithm: {kind: evolution, samples: 4096, num_envs: 64, together: 16, horizon: 8}\n"
        "  env: {reward: {concentration: 0.01}}\n"
        "spans: {validation: 40, test: 80}\n"
    )
    run = python_in(tmp_path, "-m", "podracer", "train", "own.yaml", "--out", "run")
    assert run.returncode == 0, run.stderr
    manifest = json.loads((tmp_path / "run" / "bundle" / "manifest.json").read_text())
    assert manifest["members"][0]["candidate"]["algorithm"]["kind"] == "evolution"
    assert manifest["members"][0]["candidate"]["env"]["reward"]["concentration"] == 0.01
    assert {"close_location": {"window": 5}} in manifest["lens"]["features"]
    assert manifest["provenance"]["code"] != code_hash(), "what was trained does not know of the parts"
    refused = subprocess.run(
        [sys.executable, "-m", "podracer", "backtest", str(tmp_path / "run" / "bundle")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2
    assert "unknown feature 'close_location'" in refused.stderr
    asked = python_in(
        tmp_path,
        "-c",
        "from kit.config import load\n"
        "from tournament.config import TournamentConfig\n"
        "from tournament.propose import propose\n"
        "config = load(TournamentConfig, overrides=['search.algorithms=[evolution, direct]'])\n"
        "print(*(entrant.candidate.algorithm.kind for entrant in propose(1, [], config.search, 0)))\n"
        "print(*(entrant.candidate.env.reward.concentration > 0 for entrant in propose(1, [], config.search, 0)))\n",
    )
    kinds, searched = asked.stdout.splitlines()
    assert set(kinds.split()) == {"evolution", "direct"}, asked.stderr
    assert "True" in searched


def python_in(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, *words], env=environment, cwd=folder, capture_output=True, text=True)
