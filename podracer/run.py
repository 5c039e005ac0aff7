"""A training run in a folder: begun, stopped anywhere, continued, and finished as if it had never been stopped."""

from __future__ import annotations

import dataclasses
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from agents import bundle
from agents.candidate import Candidate
from agents.ensemble import Ensemble
from agents.lens import Lens
from agents.manifest import Provenance
from agents.reference import measure
from envs.config import TradingConfig
from envs.market import MarketTensors
from envs.policy import Allocated
from kit.config import setting, to_dict, to_yaml
from kit.errors import UserError
from kit.files import hash_json, write_json, write_text
from market import data
from market.features import FeatureSpec, Scaler
from market.panel import Panel
from market.synth import SynthSource
from podracer import checkpoint
from podracer.bar import Bar
from podracer.folder import BUNDLE, CHECKPOINT, CONFIG, HISTORY, RESULT, History, held
from podracer.provenance import code_hash, created_by
from podracer.scores import compare
from podracer.spans import SpanConfig, Spans
from podracer.start import IMITATE, Start
from podracer.stop import Stop
from podracer.training import Trained, Training


@dataclass(frozen=True)
class TrainConfig:
    """What a configuration file of this room holds."""

    data: data.DataConfig = setting(data.DataConfig(SynthSource()))
    features: FeatureSpec = setting(FeatureSpec.default(), help="what the policy sees of the market")
    trading: TradingConfig = setting(TradingConfig())
    candidate: Candidate = setting(Candidate())
    spans: SpanConfig = setting(SpanConfig())
    start: str = setting("", help="imitate:BASELINE, or an earlier training's checkpoint.pt; empty: from nothing")
    seed: int = setting(0, low=0, help="another seed is another training")
    device: Literal["auto", "cpu", "cuda"] = setting("auto", help="auto: a GPU, where there is one")
    checkpoint_every: float = setting(30.0, low=0, help="seconds; 0: after every update")


class Prepared(NamedTuple):
    """What a configuration's data become."""

    panel: Panel
    lens: Lens
    market: MarketTensors
    spans: Spans


def settled(config: TrainConfig) -> TrainConfig:
    """The same wherever and whenever it is read again: paths are absolute, the device is named."""
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    start = config.start
    if start and not start.startswith(IMITATE):
        start = str(Path(start).absolute())
    return dataclasses.replace(config, data=absolute(config.data), device=device, start=start)


def prepare(config: TrainConfig) -> Prepared:
    """Bars, features on a scale that knows the train span alone, and spans."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device = 'cuda': PyTorch finds no GPU; expected cpu or auto")
    panel, report = data.load(config.data)
    if report.faults:
        print("\n".join(report.lines()), file=sys.stderr)
    features = config.features.compute(panel)
    unseen = features.warmup + config.candidate.network.lookback - 1  # bars before the first whole observation
    spans = Spans.cut(len(panel), unseen, config.spans)
    lens = Lens.of(panel, config.features, Scaler.fit(features, spans.train), config.trading)
    return Prepared(panel, lens, lens.market(panel, config.device), spans)


def run(config: TrainConfig, folder: Path) -> tuple[int, dict[str, Any]]:
    """Begin the run, or go on with it: an exit code, and the result when it is 0. `config` is settled."""
    ready = prepare(config)
    with closing(Training(config.candidate, ready.market, ready.spans, config.seed, Start(config.start))) as training:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / CONFIG).exists():
            write_text(folder / CONFIG, to_yaml(config))
        with held(folder):
            if (folder / CHECKPOINT).exists():
                training.load_state_dict(checkpoint.read(folder / CHECKPOINT, config.device))
            code, seconds = practise(training, folder, config.checkpoint_every)
            if code:
                return code, {}
            return 0, finish(config, ready, training.result(), seconds, folder)


def practise(training: Training, folder: Path, every: float) -> tuple[int, float]:
    """Train to the end, or until asked to stop: an exit code, and the seconds spent so far."""
    bar = Bar(training.candidate.algorithm.kind, training.samples, training.total, training.market.bars_per_year)
    written = time.monotonic()
    with closing(History(folder / HISTORY, training.samples)) as history, closing(bar), Stop() as stop:
        while not (training.done or stop.code):
            began, evaluations = time.monotonic(), len(training.history)
            training.advance()
            stop.listen()
            progress = training.progress()
            now = time.monotonic()
            history.add(progress, now - began, len(training.history) > evaluations)
            bar.show(progress)
            if training.done or stop.code or now - written >= every:
                checkpoint.write(folder / CHECKPOINT, training.state_dict())
                written = time.monotonic()
        return stop.code, history.seconds


def finish(config: TrainConfig, ready: Prepared, trained: Trained, seconds: float, folder: Path) -> dict[str, Any]:
    """Backtest the policy that was chosen, and write the bundle and the result."""
    policy, device = Ensemble([Allocated(trained.actor)], [1.0]), ready.market.device
    spans = {name: span for name, span in vars(ready.spans).items() if span.stop > span.start}
    if len(spans) > 1:
        del spans["train"]  # what was learnt by heart says little
    compared = {name: compare(policy, ready.market, span) for name, span in spans.items()}
    scores = {name: figures for name, (_, figures) in compared.items()}
    untouched = list(compared.values())[-1][0]  # the test span, if there is one
    flat = {f"{name}_{key}": value for name, span in scores.items() for key, value in _brief(span).items()}
    saved = bundle.save(
        folder / BUNDLE,
        [bundle.Member(config.candidate.name, trained.actor, 1.0, config.candidate, flat)],
        ready.lens,
        measure(ready.lens, ready.panel, ready.spans.train, policy, untouched, device),
        Provenance(code_hash(), identity(config), ready.panel.hash, created_by()),
        flat,
        overwrite=True,
    )
    result = {
        "candidate": config.candidate.name,
        "seed": config.seed,
        "chosen": trained.samples,
        "samples": trained.trained,
        "planned": config.candidate.algorithm.samples,
        "seconds": round(seconds, 3),
        "samples_per_second": round(trained.trained / seconds),
        "bundle": saved.hash,
        "scores": scores,
    }
    write_json(folder / RESULT, result)
    return result


def identity(config: TrainConfig) -> str:
    """A hash of all that training is a function of, beside the data."""
    parts = {name: to_dict(getattr(config, name)) for name in ("features", "trading", "candidate", "spans", "seed")}
    return hash_json(parts | {"start": Start(config.start).hash})


def _brief(span: dict[str, Any]) -> dict[str, float]:
    """What a bundle says of a span; NaN where it is not defined."""
    figures = {"sharpe": span["policy"]["sharpe"], "edge": span["edge"], "cagr": span["policy"]["cagr"]}
    return {name: float("nan") if value is None else value for name, value in figures.items()}


def absolute(value: Any) -> Any:
    """The same configuration with every path absolute."""
    if isinstance(value, Path):
        return value.absolute()
    if isinstance(value, list | tuple):
        return type(value)(map(absolute, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.init]
        return dataclasses.replace(value, **{name: absolute(getattr(value, name)) for name in names})
    return value
