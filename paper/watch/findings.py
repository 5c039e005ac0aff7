"""What a review beside the desk found out about drift: read when its file has changed."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from paper.watch.alerts import LEVELS, Level

FILE = "drift.json"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    name: str
    level: Level
    text: str


class Findings:
    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE
        self._seen: tuple[int, int] | None = None

    def new(self) -> list[Finding]:
        """Those worth an alert, once for every review."""
        try:
            found = self.file.stat()
            if (stamp := (found.st_mtime_ns, found.st_ino)) == self._seen:
                return []
            self._seen = stamp
            listed = json.loads(self.file.read_text(encoding="utf-8"))["findings"]
            findings = [Finding(str(item["name"]), item["level"], str(item["text"])) for item in listed]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.error("%s: cannot be read: %s", self.file, error)
            return []
        return [finding for finding in findings if finding.level in LEVELS[1:]]
