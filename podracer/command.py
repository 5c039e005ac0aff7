"""Train a candidate, backtest what training made, and look whether a machine is ready."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents import bundle
from agents.manifest import parse_json
from kit.cli import Command, file_or_setting
from kit.config import describe, differences, load, to_dict
from kit.errors import INTERRUPTED, UserError
from kit.log import set_up_logging
from kit.memory import keep_freed_memory
from market import data
from market.sources.times import parse_moment
from podracer.folder import BUNDLE, CONFIG, HISTORY, RESULT, dated, refuse_unless_vacant, resumed
from podracer.run import TrainConfig, run, settled
from podracer.scores import compare, table
from podracer.sebulba import ActorFailed
from podracer.training import Diverged

FAILED = 1
TRAIN_EXAMPLES = """examples:
  python -m podracer train                                   PPO on the built-in market
  python -m podracer train configs/train.yaml --out runs/first
  python -m podracer train --resume runs/first               after Ctrl-C, a crash or a power cut
  python -m podracer train bars.csv candidate.algorithm.kind=sac --seed 3
  python -m podracer train configs/train.yaml start=imitate:inverse_volatility candidate.algorithm.samples=200000

Ctrl-C stops after the current update, and a resumed run ends as if it had never been stopped.
The folder holds config.yaml, checkpoint.pt, history.csv, and at the end bundle/ and result.json."""
BACKTEST_EXAMPLES = """examples:
  python -m podracer backtest runs/first/bundle              on the bars of its run
  python -m podracer backtest runs/first/bundle newer.csv --start 2025-01-01"""


def main(words: Sequence[str] | None = None) -> int:
    parser = Command(prog="python -m podracer", description=__doc__, epilog=f"{TRAIN_EXAMPLES}\n\n{BACKTEST_EXAMPLES}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_backtest(commands)
    commands.add_parser("doctor", help="is this machine ready, and its cluster?")  # these two are begun in __main__
    commands.add_parser("completion", help="print a script that completes every command in a shell")
    options = parser.parse_args(words)
    set_up_logging("WARNING")
    keep_freed_memory()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # the matrices are small: on a busy machine more threads are far slower
    return {"train": train, "backtest": backtest}[options.command](options)


def train(options: argparse.Namespace) -> int:
    config, folder = _resumed(options) if options.resume else _begun(options)
    if (folder / RESULT).is_file():
        print(f"{folder}: finished already")
        _report(parse_json((folder / RESULT).read_bytes(), str(folder / RESULT)), folder)
        return 0
    try:
        code, result = run(config, folder)
    except (Diverged, ActorFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code:
        again = (
            f"go on with: python -m podracer train --resume {folder}"
            if (folder / CONFIG).is_file()
            else "nothing was written"
        )
        print(f"stopped; {again}", file=sys.stderr)
        return code
    _report(result, folder)
    return 0


def backtest(options: argparse.Namespace) -> int:
    loaded = bundle.load(options.bundle)
    panel, report = data.load(_data(options))
    if report.faults:
        print("\n".join(report.lines()), file=sys.stderr)
    market = loaded.market(panel)
    first, stop = loaded.bars_needed - 1, len(market) - 1  # a decision needs bars before it and one after
    if options.start:
        first = max(first, int(np.searchsorted(market.dates, _moment("--start", options.start))))
    if options.end:
        stop = min(stop, int(np.searchsorted(market.dates, _moment("--end", options.end))) - 1)
    if stop <= first:
        raise UserError(
            f"{options.bundle}: no decision between --start and --end; the bars from "
            f"{market.dates[loaded.bars_needed - 1]:.10} to {market.dates[-1]:.10} have what it needs"
        )
    _, scores = compare(loaded.policy, market, slice(first, stop))
    print("\n".join(table({"backtest": scores})))
    if panel.hash == loaded.manifest.provenance.data:
        print("These are the bars of its training: what it was trained or chosen on proves nothing.")
    return 0


def _begun(options: argparse.Namespace) -> tuple[TrainConfig, Path]:
    folder = options.out or dated("train", datetime.now())
    refuse_unless_vacant(folder)
    return settled(_config(options)), folder


def _resumed(options: argparse.Namespace) -> tuple[TrainConfig, Path]:
    """The settings of the run; others beside them would make it another one."""
    folder = resumed(options.resume, options.out)
    stored = load(TrainConfig, folder / CONFIG)
    again = options.target is None
    asked = settled(load(TrainConfig, folder / CONFIG, options.settings) if again else _config(options))
    for key, value, ours in differences(to_dict(asked), to_dict(stored)):
        raise UserError(
            f"--resume = {str(folder)!r}: {key} = {value!r}: this run's is {ours!r}; "
            "expected no other settings, or a new run without --resume"
        )
    return stored, folder


def _config(options: argparse.Namespace) -> TrainConfig:
    """From a YAML configuration, or from bars, or from nothing but settings."""
    target, settings = options.target, options.settings
    if target is not None and target.suffix in (".yaml", ".yml"):
        return load(TrainConfig, target, settings)
    source = "data.source.kind=synth" if target is None else f"data.source={{kind: file, path: {str(target)!r}}}"
    return load(TrainConfig, overrides=[source, "candidate.algorithm.kind=ppo", *settings])


def _data(options: argparse.Namespace) -> data.DataConfig:
    """The bars that are named; else those of the run in whose folder the bundle lies."""
    target, beside = options.target, options.bundle.absolute().parent / CONFIG
    if target is not None and target.suffix not in (".yaml", ".yml"):
        return load(TrainConfig, overrides=[f"data.source={{kind: file, path: {str(target)!r}}}"]).data
    if target is None and not beside.is_file():
        raise UserError(f"{options.bundle}: has no {CONFIG} of a run beside it; name the bars to trade on")
    return load(TrainConfig, target or beside).data


def _moment(name: str, text: str) -> np.datetime64:
    try:
        return parse_moment(text)
    except ValueError as error:
        raise UserError(f"{name} = {error}") from None


def _report(result: dict[str, Any], folder: Path) -> None:
    print("\n".join(table(result["scores"])))
    early = "" if result["samples"] >= result["planned"] else f", stopped early of {result['planned']:,} planned"
    how = "chosen on validation" if "validation" in result["scores"] else "the last one"
    print(f"\npolicy after {result['chosen']:,} of {result['samples']:,} samples ({how}){early}; ", end="")
    print(f"{result['samples_per_second']:,} samples/s")
    if "test" in result["scores"]:
        print(
            "One look at the test span is fair; choosing among trainings by it is not: that is what validation is for."
        )
    print(f"history: {folder / HISTORY}\nbundle:  {folder / BUNDLE}  {result['bundle'][:12]}")
    print(f"next:    python -m podracer backtest {folder / BUNDLE} YOUR_BARS.csv")


def _add_train(commands: argparse._SubParsersAction[Command]) -> None:
    epilog = "\n  ".join([f"{TRAIN_EXAMPLES}\n\nsettings:", *describe(TrainConfig)])
    text = "train a candidate; write its checkpoint, its history and a bundle"
    parser = commands.add_parser("train", help=text, description=text, epilog=epilog)
    target = "a YAML configuration, or a file or folder of bars (default: the built-in market)"
    parser.add_run_arguments(target, "TARGET", "DIR", "runs/train-DATE-TIME")


def _add_backtest(commands: argparse._SubParsersAction[Command]) -> None:
    text = "trade a bundle on bars, beside equal weight, costs included"
    parser = commands.add_parser("backtest", help=text, description=text, epilog=BACKTEST_EXAMPLES)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a bundle's folder")
    target = "a file or folder of bars, or a YAML configuration (default: the bars of its run)"
    parser.add_argument("target", type=file_or_setting, nargs="?", metavar="DATA", help=target)
    parser.add_argument("--start", metavar="TIME", help="the first decision, UTC unless it names a zone")
    parser.add_argument("--end", metavar="TIME", help="the time at which to stop")
