"""Logging to stderr, with secrets taken out before a line leaves the process."""

from __future__ import annotations

import logging
import os
import re
import sys

HIDDEN = "[hidden]"
_SECRET_NAME = re.compile(r"(KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|WEBHOOK)", re.IGNORECASE)
_NOT_A_SECRET = 6  # shorter values would hide ordinary words
_PATTERNS = (
    re.compile(r"(?i)(bearer\s+)[^\s'\",;]+"),
    re.compile(r"(?i)((?:apca-api-[a-z-]+|authorization|(?<![\w-])[\w-]*(?:api[_-]?key|secret|token|password))"
               r"['\"]?\s*[:=]\s*['\"]?)(?!bearer\b)[^\s'\",;}&]+"),
    re.compile(r"(://[^/\s:@]+:)[^@\s/]+(?=@)"),
)  # fmt: skip


def redact(text: str) -> str:
    """Hide the values of secret-looking environment variables, headers and URL passwords."""
    for name, value in os.environ.items():
        if len(value) >= _NOT_A_SECRET and _SECRET_NAME.search(name):
            text = text.replace(value, HIDDEN)
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return text


class RedactingFormatter(logging.Formatter):
    """Redacts the finished line, so that arguments and tracebacks are covered too."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def set_up_logging(level: str = "INFO") -> None:
    """Send every log line to stderr through the redactor; calling it again replaces the set-up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("websockets").setLevel(logging.INFO)  # its DEBUG lines carry credentials
