"""Command lines that explain themselves, with one line where argparse would print several."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from kit.errors import UserError


class Command(argparse.ArgumentParser):
    """A parser whose help keeps its examples as written, and whose complaints are one line."""

    def __init__(self, *arguments: object, **options: object) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        options.setdefault("allow_abbrev", False)
        super().__init__(*arguments, **options)  # type: ignore[arg-type]

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Settings, key=value, may stand before, between and after options; argparse takes only the first."""
        options, rest = self.parse_known_args(args, namespace)
        takes_settings = hasattr(options, "settings")
        for word in rest:
            if not takes_settings or "=" not in word or word.startswith("-"):
                self.error(f"unknown argument {word!r}")
        if takes_settings:
            options.settings = [*options.settings, *rest]
        return options

    def error(self, message: str) -> NoReturn:
        choice = re.match(r"argument (\S+): invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if choice:
            name, value, choices = choice.groups()
            known = re.findall(r"[\w-]+", choices)
            near = difflib.get_close_matches(value, known, 1, 0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            message = f"{name} = {value!r}: expected one of {', '.join(known)}{hint}"
        raise UserError(f"{self.prog}: {message} (see {self.prog} --help)")
