"""The commands of the room, as a user types them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from kit.config import build, load, to_dict
from market.__main__ import MarketConfig

ROOT = Path(__file__).parents[2]


def market(*words, cwd=ROOT, environment=None):
    command = [sys.executable, "-m", "market", *map(str, words)]
    path = {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env=os.environ | path | (environment or {}), check=False
    )


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    file = tmp_path_factory.mktemp("bars") / "bars.csv"
    run = market("synth", "--symbols", 3, "--bars", 400, "--seed", 5, "--out", file)
    assert run.returncode == 0, run.stderr
    assert "3 symbols, 400 day bars, seed 5" in run.stdout
    return file


def test_the_file_has_the_columns_that_it_promises(bars):
    columns = "timestamp,symbol,open,high,low,close,volume,signal"
    assert bars.read_text().splitlines()[0] == columns


def test_the_same_seed_gives_the_same_file(bars, tmp_path):
    again = tmp_path / "again.csv"
    assert market("synth", "--symbols", 3, "--bars", 400, "--seed", 5, "--out", again).returncode == 0
    assert again.read_bytes() == bars.read_bytes()


def test_check_prints_a_report_and_writes_it_as_json(bars, tmp_path):
    run = market("check", bars, cwd=tmp_path)
    assert run.returncode == 0
    assert "3 symbols, 400 times" in run.stdout
    assert "no faults" in run.stdout
    report = json.loads((tmp_path / "bars.quality.json").read_text())
    assert [c["symbol"] for c in report["coverage"]] == ["SYN00", "SYN01", "SYN02"]


def test_a_damaged_file_is_refused_with_its_line_and_nothing_is_written(bars, tmp_path):
    lines = bars.read_text().splitlines()
    cells = lines[7].split(",")
    cells[5] = "-1.0"
    lines[7] = ",".join(cells)
    damaged = tmp_path / "damaged.csv"
    damaged.write_text("\n".join(lines))
    run = market("check", damaged, cwd=tmp_path)
    assert run.returncode == 2
    assert run.stdout == ""
    assert len(run.stderr.splitlines()) == 1
    assert f"{damaged} line 8" in run.stderr
    assert "close = -1" in run.stderr
    assert list(tmp_path.iterdir()) == [damaged]


def test_a_policy_on_the_command_line_repairs_and_says_so(bars, tmp_path):
    lines = bars.read_text().splitlines()
    lines.insert(8, lines[7])
    damaged = tmp_path / "damaged.csv"
    damaged.write_text("\n".join(lines))
    assert market("check", damaged, cwd=tmp_path).returncode == 2
    run = market("check", damaged, "data.quality.duplicate=repair", cwd=tmp_path)
    assert run.returncode == 0
    assert "duplicate" in run.stdout


def test_features_are_written_after_their_warm_up(bars, tmp_path):
    out = tmp_path / "features.parquet"
    run = market("features", bars, "--out", out, "features=[{log_return: {horizons: [1, 5]}}, observed]")
    assert run.returncode == 0, run.stderr
    table = pd.read_parquet(out)
    assert list(table.columns) == ["timestamp", "symbol", "log_return_1", "log_return_5", "signal"]
    assert len(table) == 3 * (400 - 5)


def test_plot_and_oracle_and_fetch_do_what_they_say(bars, tmp_path):
    page = market("plot", bars, cwd=tmp_path)
    assert page.returncode == 0, page.stderr
    assert "<svg" in (tmp_path / "bars.html").read_text()
    oracle = market("oracle", bars, "--json", tmp_path / "oracle.json")
    assert oracle.returncode == 0, oracle.stderr
    assert "ic" in json.loads((tmp_path / "oracle.json").read_text())["signal"]
    fetched = tmp_path / "fetched.csv"
    fetch = market("fetch", bars, "--out", fetched)
    assert fetch.returncode == 0, fetch.stderr
    assert "1,200 bars" in fetch.stdout
    assert len(pd.read_csv(fetched)) == 1200


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["chekc", "x"], ["'chekc'", "did you mean check?"]),
        (["check", "nothere.csv"], ["nothere.csv", "no such file"]),
        (["check", "nothere.yaml"], ["nothere.yaml", "no such file"]),
        (["synth", "--out", "x.csv", "--ic", "2"], ["ic = 2", "below 1"]),
        (["synth", "--out", "x.csv", "--symbols", "many"], ["symbols = 'many'", "a whole number"]),
        (["synth", "--out", "x.txt"], ["x.txt", ".csv or .parquet"]),
        (["synth"], ["--out"]),
        (["features", "configs/market.yaml", "--out", "x.csv"], ["x.csv", ".parquet"]),
        (["features", "configs/market.yaml", "--out", "x.parquet", "features=[rsl]"], ["rsl", "did you mean rsi?"]),
        (["features", "configs/market.yaml", "--out", "x.parquet", "data.source.bars=50"], ["50 bars"]),
        (["check", "configs/market.yaml", "data.sorce.seed=1"], ["data.sorce", "did you mean source?"]),
        (["check", "configs/alpaca.yaml"], ["APCA_API_KEY_ID"]),
        (["oracle", "configs/market.yaml", "--cost-bp", "-1"], ["cost_bp", "at least 0"]),
        ([], ["COMMAND"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, fragments, tmp_path):
    paths = [ROOT / word if str(word).startswith("configs/") else word for word in words]
    run = market(*paths, cwd=tmp_path, environment={"APCA_API_KEY_ID": "", "APCA_API_SECRET_KEY": ""})
    assert run.returncode == 2, run.stdout + run.stderr
    assert len(run.stderr.splitlines()) == 1, run.stderr
    for fragment in fragments:
        assert fragment in run.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["synth", "check", "features", "plot", "oracle", "fetch"])
def test_every_command_explains_itself(command):
    run = market(command, "--help")
    assert run.returncode == 0
    assert "--" in run.stdout


def test_the_examples_of_the_help_name_commands_that_exist():
    text = market("--help").stdout
    named = {line.split()[3] for line in text.splitlines() if line.strip().startswith("python -m market")}
    assert named <= {"synth", "check", "features", "plot", "oracle", "fetch"}
    assert len(named) >= 5


CONFIGS = [file for file in sorted((ROOT / "configs").glob("*.yaml")) if "python -m market" in file.read_text()]


@pytest.mark.parametrize("file", CONFIGS, ids=lambda f: f.name)
def test_every_configuration_in_the_folder_is_valid(file):
    config = load(MarketConfig, file)
    assert build(MarketConfig, to_dict(config)) == config
