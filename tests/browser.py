"""Headless Chromium for tests of pages."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on PATH")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


def dump_dom(page: Path, width: int, dark: bool = False) -> str:
    """The document after its script ran, as Chromium writes it."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory() as profile:
        scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
        command = [CHROMIUM, *_FLAGS, scheme, f"--user-data-dir={profile}", f"--window-size={width},900"]
        done = subprocess.run(
            [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=False
        )
    assert done.returncode == 0, done.stderr
    return done.stdout


def evaluate(page: Path, width: int, script: str, dark: bool = False) -> Any:
    """What the body of a JavaScript function returns when run at the end of the page.

    It runs in a copy without the page's security policy, which would rightly refuse it, and inside a
    frame of the width asked for, as Chromium's own window cannot be narrower than a few hundred pixels.
    """
    text = _POLICY.sub("", page.read_text(encoding="utf-8"))
    answer = f"JSON.stringify((() => {{ {script} }})())"
    with tempfile.TemporaryDirectory() as folder:
        copy, outer = Path(folder, "copy.html"), Path(folder, "outer.html")
        copy.write_text(f"{text}<script>parent.postMessage({answer}, '*')</script>", encoding="utf-8")
        outer.write_text(
            "<!doctype html><meta name='color-scheme' content='light dark'><body>"
            "<script>addEventListener('message', event => {"
            "document.body.dataset.answer = encodeURIComponent(event.data); })</script>"
            f'<iframe src="copy.html" style="border:0;width:{width}px;height:900px"></iframe>',
            encoding="utf-8",
        )
        dom = dump_dom(outer, max(width, 1000), dark)
    found = re.search(r'data-answer="([^"]*)"', dom)
    assert found, "the page's script did not answer"
    return json.loads(unquote(found[1]))
