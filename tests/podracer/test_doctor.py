"""The doctor: what is as it should be is ok, and what is not is named, with what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from podracer.doctor import command, installed, reached
from podracer.doctor.finding import Finding, examine

ROOT = Path(__file__).parents[2]
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def clock_off_by(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server whose clock is so many seconds behind."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(401)
            import time

            self.send_header("Date", formatdate(time.time() - request.param, usegmt=True))
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def states(findings: Iterator[Finding]) -> list[str]:
    return [finding.state for finding in findings]


def doctor(*words: str | Path, cwd: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "APCA"))}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **more}
    words = ("-m", "podracer", "doctor", "--clock", NOWHERE, *map(str, words))
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )


def test_a_machine_that_passes_these_tests_is_ready_and_ray_runs_a_task_on_it(tmp_path: Path) -> None:
    answer = doctor("--storage", tmp_path / "runs")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    lines = answer.stdout.splitlines()
    assert lines[-1] == "ready"
    for what in ("Python", "rooms", "packages", "ElegantRL", "GPU", "CPU", "storage", "Ray"):
        assert any(line.startswith(f"ok    {what} ") for line in lines), what
    assert any("a task ran on 1 of 1 as it would here" in line for line in lines)
    assert not list((tmp_path / "runs").iterdir())


def test_no_key_is_ever_shown(tmp_path: Path) -> None:
    keys = {"WANDB_API_KEY": "w" * 40, "APCA_API_KEY_ID": "PK" + "A" * 18, "APCA_API_SECRET_KEY": "S" * 40}
    for words in ((), ("--json",)):
        answer = doctor("--no-ray", "--storage", tmp_path, *words, **keys)
        assert answer.returncode == 0
        assert not [key for key in keys.values() if key in answer.stdout + answer.stderr]
    found = {line["what"]: line for line in json.loads(answer.stdout)}
    assert found["Alpaca"]["found"] == "both keys are set"
    assert found["W&B"]["found"] == "WANDB_API_KEY is set: online"


def test_a_foreign_package_that_shadows_a_room_is_named(tmp_path: Path) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").touch()
    foreign = os.pathsep.join([str(tmp_path), str(ROOT)])
    answer = doctor("--no-ray", "--storage", tmp_path / "runs", cwd=tmp_path, PYTHONPATH=foreign)
    assert answer.returncode == 1
    assert f"mend  rooms        envs is {tmp_path / 'envs' / '__init__.py'}; expected {ROOT / 'envs'}" in answer.stdout
    assert "Traceback" not in answer.stderr


def test_a_package_that_is_not_there_is_a_line_and_no_traceback(tmp_path: Path) -> None:
    """A bare Python has next to nothing of what the rooms need."""
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from podracer.__main__ import main; sys.exit(main())"
    words = [sys.executable, "-I", "-S", "-c", code, str(ROOT), "doctor"]
    answer = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 1, answer.stderr
    assert not answer.stderr
    assert "mend  ElegantRL    is not installed" in answer.stdout
    assert f"-> {installed.SETUP}" in answer.stdout


def test_other_versions_than_those_asked_for_and_tested_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = installed._version
    monkeypatch.setattr(installed, "_version", lambda name: {"numpy": "1.26.4", "ray": "99.0"}.get(name) or real(name))
    found = list(installed.packages())
    assert [(f.what, f.state) for f in found] == [("numpy", "mend"), ("packages", "note")]
    assert found[0].found == "1.26.4; expected >=2.1"
    assert "ray 99.0 (" in found[-1].found


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = installed._version
    monkeypatch.setattr(installed, "_version", lambda name: None if name in ("optuna", "elegantrl") else real(name))
    assert [f.what for f in installed.packages() if f.state == "mend"] == ["optuna"]
    (found,) = installed.elegantrl()
    assert (found.state, found.remedy) == ("mend", "pip install --no-deps elegantrl==0.3.6")


def test_cards_that_pytorch_does_not_see_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(installed, "_cards", lambda: ["NVIDIA H200"])
    found = next(iter(installed.devices()))
    assert found.state == "mend"
    assert found.found.startswith("NVIDIA H200 here, but this PyTorch, ")


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    assert states(reached.storage(str(tmp_path))) == ["ok"]
    monkeypatch.setattr(reached.os, "fsync", full)
    (found,) = reached.storage(str(tmp_path))
    assert found.state == "mend"
    assert "No space left on device" in found.found
    assert not list(tmp_path.iterdir())


def test_a_folder_without_hard_links_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(reached.os, "link", refused)
    assert states(reached.storage(str(tmp_path))) == ["ok", "note"]
    assert not list(tmp_path.iterdir())


def test_no_ray_at_its_address_is_told(tmp_path: Path) -> None:
    answer = doctor("--storage", tmp_path, RAY_ADDRESS="127.0.0.1:9", RAY_AUTH_MODE="disabled")
    assert answer.returncode == 1
    assert "mend  Ray          RAY_ADDRESS = '127.0.0.1:9': no Ray answers there" in answer.stdout


class TwoMachines:
    """A cluster whose second machine sees one folder only; tasks run here, as each machine would see it."""

    def __init__(self, seen: Path) -> None:
        self.seen = seen

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "NodeID": n * 56, "NodeManagerAddress": f"10.0.0.{n}"} for n in "12"]

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, task: Callable[[str, str], dict[str, Any]]) -> Any:
        def options(num_cpus: int, scheduling_strategy: Any) -> Any:
            second = scheduling_strategy.node_id.startswith("2")

            def run(where: str, sign: str) -> dict[str, Any]:
                answer = task(where, sign)
                return answer | {"sees": answer["sees"] and (not second or Path(sign).parent == self.seen)}

            return SimpleNamespace(remote=run)

        return SimpleNamespace(options=options)

    def get(self, answer: dict[str, Any], timeout: float) -> dict[str, Any]:
        return answer


@pytest.mark.parametrize(("shared", "expected"), [("runs", ["ok", "ok"]), ("elsewhere", ["ok", "mend", "mend"])])
def test_every_machine_must_see_the_folder_that_was_named(
    shared: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reached, "attach", lambda: TwoMachines(tmp_path / shared))
    monkeypatch.setattr(reached, "_room_for_ray", lambda: iter(()))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    found = list(reached.ray(str(tmp_path / "runs")))
    assert [finding.state for finding in found] == expected
    blind = [finding.found for finding in found if finding.what == "storage"]
    assert blind == [f"10.0.0.2 (22222222) does not see {tmp_path / 'runs'}"] * (len(expected) - 2)
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize("clock_off_by", [0.0], indirect=True)
def test_a_clock_that_agrees_is_ok(clock_off_by: str) -> None:
    assert states(reached.clock(clock_off_by)) == ["ok"]


@pytest.mark.parametrize("clock_off_by", [-30.0, 30.0], indirect=True)
def test_a_clock_that_is_off_is_told(clock_off_by: str) -> None:
    assert states(reached.clock(clock_off_by)) == ["mend"]


def test_a_clock_that_nobody_answers_for_is_noted() -> None:
    assert states(reached.clock(NOWHERE)) == ["note"]


def test_a_check_that_fails_by_itself_is_a_finding_and_the_rest_go_on() -> None:
    def broken() -> Iterator[Finding]:
        raise RuntimeError("two\nlines")
        yield

    found = list(examine([("first", broken), ("second", lambda: [Finding("second", "ok", "fine")])]))
    assert [(f.what, f.state) for f in found] == [("first", "mend"), ("second", "ok")]
    assert found[0].found == "could not be checked: RuntimeError: two lines"


def test_colours_change_no_word() -> None:
    finding = Finding("Ray", "mend", "none", "begin one")
    plain, coloured = finding.lines(), finding.lines(colour=True)
    assert plain[0] == "mend  Ray          none"
    assert coloured[0].replace("\033[31m", "").replace("\033[0m", "") == plain[0]
    assert coloured[1] == plain[1]


def test_bad_options_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    from kit.errors import UserError

    with pytest.raises(UserError, match=r"^python -m podracer doctor: .*--nosuch"):
        command.main(["--nosuch"])
