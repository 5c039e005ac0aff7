"""The journal's newest anchor goes to the webhook, and proves there that nothing was cut off."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from journals import KEY, bar, copied, opened, written

from paper import __main__ as command
from paper.chain import KEY as KEY_NAME
from paper.chain import Anchor
from paper.watch.witness import Witness


class Hook(ThreadingHTTPServer):
    """Keeps what it is told, once it may answer; the first so many times it fails."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.texts: list[str] = []
        self.failures = 0
        self.open = threading.Event()
        self.open.set()
        self.url = f"http://127.0.0.1:{self.server_port}/hush"


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.open.wait(20)
        failed, self.server.failures = self.server.failures > 0, max(0, self.server.failures - 1)
        if not failed:
            self.server.texts.append(content["text"])
        self.send_response(500 if failed else 200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.open.set()
    server.shutdown()
    server.server_close()


def anchors(folder: Path, count: int) -> list[Anchor]:
    made = []
    with opened(folder / "desk.db") as journal:
        for number in range(count):
            bar(journal, number)
            made.append(journal.anchor())
    return made


def told(text: str) -> Anchor:
    found = Anchor.parse(text.removeprefix("anchor of desk: "))
    assert found is not None, text
    return found


def test_an_anchor_reaches_the_webhook_as_it_is(hook: Hook, tmp_path: Path) -> None:
    (anchor,) = anchors(tmp_path, 1)
    witness = Witness(hook.url, "desk", 5.0)
    witness.put(anchor)
    witness.close()
    assert [told(text) for text in hook.texts] == [anchor]


def test_a_webhook_that_hangs_delays_nobody_and_gets_the_newest(hook: Hook, tmp_path: Path) -> None:
    made = anchors(tmp_path, 5)
    hook.open.clear()
    witness = Witness(hook.url, "desk", 20.0, apart=0.0)
    began = time.monotonic()
    for anchor in made:
        witness.put(anchor)
    assert time.monotonic() - began < 1.0
    hook.open.set()
    witness.close()
    assert told(hook.texts[-1]) == made[-1]
    assert len(hook.texts) <= 2


def test_a_failure_is_counted_and_the_next_anchor_goes_out(hook: Hook, tmp_path: Path) -> None:
    first, second = anchors(tmp_path, 2)
    hook.failures = 1
    witness = Witness(hook.url, "desk", 5.0, apart=0.0)
    witness.put(first)
    until = time.monotonic() + 20
    while not witness.unsent:
        assert time.monotonic() < until
        time.sleep(0.01)
    witness.put(second)
    witness.close()
    assert [told(text) for text in hook.texts] == [second]


def test_verify_finds_what_was_cut_off_by_the_line_that_the_webhook_has(
    hook: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "record", bars=5)
    with opened(path) as journal:
        witness = Witness(hook.url, "desk", 5.0)
        witness.put(journal.anchor())
        witness.close()
    line = hook.texts[0].removeprefix("anchor of desk: ")
    monkeypatch.setenv(KEY_NAME, KEY.decode())
    words = ["paper", "verify", str(path.parent), "--witness", line]
    monkeypatch.setattr("sys.argv", words)
    assert command.main() == 0
    copied(written(tmp_path / "then" / "record", bars=3), path.parent)
    assert command.main() == 1
    assert "an anchor kept elsewhere names entry 22" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["", "13", "{}", '{"number": 1, "count": 2, "head": "a", "at": "b", "mac": "c"}'])
def test_a_witness_that_is_no_anchor_of_the_desk_is_refused(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "record", bars=1)
    monkeypatch.setenv(KEY_NAME, KEY.decode())
    monkeypatch.setattr("sys.argv", ["paper", "verify", str(path.parent), "--witness", line])
    with pytest.raises(command.UserError, match=r"^--witness = .*: expected an anchor of this desk"):
        command.main()
