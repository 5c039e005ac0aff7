"""A headless Chromium that is told what to do over its own protocol, and keeps what it complains of."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from browser import _FLAGS, CHROMIUM
from websockets.sync.client import ClientConnection, connect

PATIENCE = 60.0  # seconds, on a machine that has much else to do


class Chrome:
    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._number = socket, 0
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(PATIENCE))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return dict(message["result"])
            self._heard(message)

    def _heard(self, message: dict[str, Any]) -> None:
        method, said = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown" or (
            method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning")
        ):
            self.complaints.append(json.dumps(said))
        elif method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")

    def open(self, url: str, width: int = 1000, height: int = 900, dark: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)
        self.until("document.documentElement && document.readyState === 'complete'")

    def ask(self, expression: str) -> Any:
        """What an expression comes to in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """Wait until an expression is true in the page."""
        ends = time.monotonic() + PATIENCE
        while not (value := self.ask(expression)):
            assert time.monotonic() < ends, f"{expression} never came true; {self.complaints}"
            time.sleep(0.05)
        return value

    def picture(self, file: Path) -> None:
        height = self.ask("document.documentElement.scrollHeight")
        width = self.ask("innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        data = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(data))


@contextmanager
def chrome() -> Iterator[Chrome]:
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, *_FLAGS, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
        try:
            with connect(_address(Path(profile), process), max_size=None, proxy=None) as browser:
                browser.send(json.dumps({"id": 1, "method": "Target.getTargets"}))
                while "result" not in (answer := json.loads(browser.recv(PATIENCE))):
                    pass
                page = next(t["targetId"] for t in answer["result"]["targetInfos"] if t["type"] == "page")
                base = _address(Path(profile), process).split("/devtools")[0]
                with connect(f"{base}/devtools/page/{page}", max_size=None, proxy=None) as socket:
                    yield Chrome(socket)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """Where it listens, which it writes into its profile."""
    file, ends = profile / "DevToolsActivePort", time.monotonic() + PATIENCE
    while not (file.exists() and len(lines := file.read_text().split()) == 2):
        assert process.poll() is None and time.monotonic() < ends, "Chromium does not start"
        time.sleep(0.05)
    return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
