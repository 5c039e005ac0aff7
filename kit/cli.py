"""Command lines that explain themselves, with one line where argparse would print several."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

from kit.errors import UserError

_ASKED = ContextVar("asked", default=False)


class _Answer(Exception):
    def __init__(self, parser: Command) -> None:
        self.parser = parser


def parser_of(main: Callable[[], object]) -> Command:
    """What a command's `main` parses its words with; nothing is parsed, and nothing done."""
    token = _ASKED.set(True)
    try:
        main()
    except _Answer as answer:
        return answer.parser
    finally:
        _ASKED.reset(token)
    raise ValueError("main parses no words")


class Command(argparse.ArgumentParser):
    """A parser whose help keeps its examples as written, and whose complaints are one line."""

    def __init__(self, *arguments: object, **options: object) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        options.setdefault("allow_abbrev", False)
        super().__init__(*arguments, **options)  # type: ignore[arg-type]

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Settings, key=value, may stand before, between and after options; argparse takes only the first."""
        if _ASKED.get():
            raise _Answer(self)
        options, rest = self.parse_known_args(args, namespace)
        takes_settings = hasattr(options, "settings")
        for word in rest:
            if not takes_settings or "=" not in word or word.startswith("-"):
                self.error(f"unknown argument {word!r}")
        if takes_settings:
            options.settings = [*options.settings, *rest]
        target = getattr(options, "target", None)
        if takes_settings and isinstance(target, str) and "=" in target:
            options.settings, options.target = [target, *options.settings], None
        if takes_settings and getattr(options, "seed", None) is not None:
            options.settings = [*options.settings, f"seed={options.seed}"]
        return options

    def add_run_arguments(self, target: str, metavar: str, folder: str, default: str) -> None:
        """What a run is begun from or gone on with: a configuration, settings that win over it, and a folder."""
        self.add_argument("target", type=file_or_setting, nargs="?", metavar=metavar, help=target)
        self.add_argument("settings", nargs="*", metavar="key=value", help="settings that win over the configuration's")
        self.add_argument("--out", type=Path, metavar=folder, help=f"the run's folder (default: {default})")
        self.add_argument("--resume", type=Path, metavar=folder, help="go on with the run in this folder")
        self.add_argument("--seed", metavar="N", help="the same as seed=N")

    def error(self, message: str) -> NoReturn:
        choice = re.match(r"argument (\S+): invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if choice:
            name, value, choices = choice.groups()
            known = re.findall(r"[\w-]+", choices)
            near = difflib.get_close_matches(value, known, 1, 0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            message = f"{name} = {value!r}: expected one of {', '.join(known)}{hint}"
        raise UserError(f"{self.prog}: {message} (see {self.prog} --help)")


def examples_of(command: str, text: str) -> str:
    """The examples that show one command, out of its room's; a line that ends in a backslash goes on."""
    found, goes_on = [], False
    for line in text.splitlines():
        if goes_on or (line.startswith("  ") and f"python -m {command} " in f"{line} "):
            found.append(line)
            goes_on = line.endswith("\\")
    return "\n".join(["examples:", *found])


def file_or_setting(text: str) -> Path | str:
    """A path; but what has an equals sign and is no file is a setting, which stays as it was written."""
    return text if "=" in text and not Path(text).exists() else Path(text)
