"""Bars: build, fetch, check, compute features, draw."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.cli import Command, examples_of
from kit.config import describe, load, setting
from kit.errors import UserError, run_command
from kit.files import replacing, write_json
from kit.log import set_up_logging
from market import data
from market.features import FeatureSpec
from market.oracle import OracleRule, analyse
from market.page import write_market_page
from market.panel import FIELDS, Panel
from market.quality import Report
from market.synth import SynthSource, write

EXAMPLES = """examples:
  python -m market synth --out market.parquet            a market with a known answer
  python -m market check bars.csv                        what is wrong with a file; exit code 2 if it must be refused
  python -m market features bars.parquet --out features.parquet
  python -m market plot bars.csv --out bars.html         one page, no network needed
  python -m market oracle market.parquet                 the best that can be earned on the built-in market
  python -m market fetch configs/alpaca.yaml --out bars.parquet data.source.start=2020-01-01

TARGET is a file or a folder of bars (CSV or Parquet, long or wide), or a YAML configuration.
Settings may follow it as key=value: `python -m market check --help` lists them."""


@dataclass(frozen=True)
class MarketConfig:
    """What a configuration file of this room holds."""

    data: data.DataConfig
    features: FeatureSpec = setting(FeatureSpec.default())


def main() -> None:
    parser = Command(prog="python -m market", description=__doc__, epilog=EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_synth(commands)
    add = {
        name: _add_target(commands, name, text)
        for name, text in {
            "check": "find faults in bars; write them as JSON",
            "features": "compute features; write them as Parquet",
            "plot": "draw bars as one HTML page",
            "oracle": "what the signal of the built-in market can earn",
            "fetch": "bring bars from a source into one file",
        }.items()
    }
    add["check"].add_argument("--json", type=Path, metavar="FILE", help="the report (default: ./NAME.quality.json)")
    add["features"].add_argument("--out", type=Path, required=True, metavar="FILE", help="a .parquet file")
    add["plot"].add_argument("--out", type=Path, metavar="FILE", help="the page (default: ./NAME.html)")
    add["oracle"].add_argument("--cost-bp", type=float, default=5.0, help="cost of trading, basis points (default 5)")
    add["oracle"].add_argument("--json", type=Path, metavar="FILE", help="write the figures too")
    add["fetch"].add_argument("--out", type=Path, required=True, metavar="FILE", help="a .csv or .parquet file")
    options = parser.parse_args()
    set_up_logging("WARNING")
    {"synth": synth, "check": check, "features": features, "plot": plot, "oracle": oracle, "fetch": fetch}[
        options.command
    ](options)


def synth(options: argparse.Namespace) -> None:
    keys = ("symbols", "bars", "ic", "seed", "bar")
    source = load(SynthSource, overrides=[f"{key}={getattr(options, key)}" for key in keys])
    path = write(source, options.out)
    kind = "no signal: nothing beats equal weight" if source.ic == 0 else f"a signal of correlation {source.ic:g}"
    print(f"{path}: {source.symbols} symbols, {source.bars:,} {source.bar} bars, seed {source.seed}, {kind}")


def check(options: argparse.Namespace) -> None:
    config = _config(options)
    _, report = data.load(config.data)
    print("\n".join(report.lines()))
    file = options.json or _here(options.target, ".quality.json")
    write_json(file, report.to_json())
    print(f"report: {file}")


def features(options: argparse.Namespace) -> None:
    config = _config(options)
    if options.out.suffix != ".parquet":
        raise UserError(f"--out = {str(options.out)!r}: features are written as Parquet; end it on .parquet")
    panel, report = data.load(config.data)
    _mention(report)
    made = config.features.compute(panel)
    rows, columns = np.nonzero(panel.tradable[made.warmup :])
    rows += made.warmup
    values = made.values[rows, columns]  # [R, F]
    table = pd.DataFrame(values, columns=list(made.names))
    table.insert(0, "timestamp", panel.times[rows])
    table.insert(1, "symbol", _names(panel, columns))
    with replacing(options.out) as temporary:
        table.to_parquet(temporary, index=False)
    print(f"{'feature':<24} {'mean':>10} {'std':>10} {'min':>10} {'max':>10}")
    for name, column in zip(made.names, values.T):
        cells = (column.mean(dtype=np.float64), column.std(dtype=np.float64), column.min(), column.max())
        print(f"{name:<24} " + " ".join(f"{cell:>10.4g}" for cell in cells))
    print(f"{options.out}: {len(made.names)} features, {len(values):,} rows after a warm-up of {made.warmup} bars")


def plot(options: argparse.Namespace) -> None:
    config = _config(options)
    panel, report = data.load(config.data)
    _mention(report)
    out = options.out or _here(options.target, ".html")
    title = options.target.stem
    print(f"page: {write_market_page(panel, out, title=title, report=report)}")


def oracle(options: argparse.Namespace) -> None:
    config = _config(options)
    rule = load(OracleRule, overrides=[f"cost_bp={options.cost_bp}"])
    panel, report = data.load(config.data)
    _mention(report)
    found = analyse(panel, rule, str(options.target))
    print("\n".join(found.lines()))
    if options.json:
        write_json(options.json, found.to_json())
        print(f"figures: {options.json}")


def fetch(options: argparse.Namespace) -> None:
    if options.out.suffix not in (".csv", ".parquet"):
        raise UserError(f"--out = {str(options.out)!r}: end it on .csv or .parquet")
    panel, report = data.load(_config(options).data)
    print("\n".join(report.lines()))
    table = _table(panel)
    with replacing(options.out) as temporary:
        if options.out.suffix == ".csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)
    print(f"{options.out}: {len(table):,} bars")


def _table(panel: Panel) -> pd.DataFrame:
    """The bars of a panel, one row each; gaps are left out, as they came."""
    rows, columns = np.nonzero(panel.tradable)
    cells = {name: getattr(panel, name)[rows, columns] for name in FIELDS}
    for name, column in panel.observed.items():
        cells |= {name: column.values[rows, columns], f"{name}_known_at": column.known_at[rows, columns]}
    symbols = _names(panel, columns)
    return pd.DataFrame({"timestamp": panel.times[rows], "symbol": symbols, **cells})


def _names(panel: Panel, columns: np.ndarray) -> pd.Series:  # [R]
    return pd.Series(pd.Categorical.from_codes(columns.astype(np.int32), pd.Index(panel.symbols)))


def _config(options: argparse.Namespace) -> MarketConfig:
    target: Path = options.target
    if target.suffix in (".yaml", ".yml"):
        return load(MarketConfig, target, options.settings)
    given = [f"data.source={{kind: file, path: {str(target)!r}}}", *options.settings]
    return load(MarketConfig, overrides=given)


def _mention(report: Report) -> None:
    """Say on the side what a check would say, where there is something to say."""
    if report.faults:
        print("\n".join(report.lines()), file=sys.stderr)


def _here(target: Path, suffix: str) -> Path:
    """A file named after the target, in the current folder: the target's own may be read-only."""
    return Path(f"{target.resolve().stem}{suffix}")


def _add_synth(commands: argparse._SubParsersAction[Command]) -> None:
    parser = commands.add_parser(
        "synth", help="write the built-in market, whose answer is known", epilog=examples_of("market synth", EXAMPLES)
    )
    for line in describe(SynthSource):
        key, _, text = line.partition(": ")
        if key != "kind":
            default = getattr(SynthSource(), key)
            parser.add_argument(f"--{key}", default=default, help=f"{text.partition('  ')[2]} (default {default})")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .csv or .parquet file")


def _add_target(commands: argparse._SubParsersAction[Command], name: str, text: str) -> Command:
    epilog = "\n  ".join([f"{examples_of(f'market {name}', EXAMPLES)}\n\nsettings:", *describe(MarketConfig)])
    parser = commands.add_parser(name, help=text, description=text, epilog=epilog)
    parser.add_argument("target", type=Path, metavar="TARGET", help="a file or folder of bars, or a YAML configuration")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings that win over the configuration's")
    return parser


if __name__ == "__main__":
    run_command(main)
