"""What mkdocs adds to the written pages: the reference, made of the code's own dataclasses and parsers."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import io
import os
import re
import sys
import types
import typing
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from unittest.mock import patch

import yaml

from envs.config import TradingConfig
from kit.config import to_dict
from market.data import DataConfig
from market.features import FeatureSpec
from market.features.transform import REGISTRY
from paper.config import PaperConfig
from paper.exchange.config import ExchangeConfig
from paper.review.commands import ReviewConfig
from podracer.run import TrainConfig
from serve.config import ServeConfig
from tournament.config import TournamentConfig

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOMS = ("market", "podracer", "tournament", "serve", "paper", "benchmarks")
SHARED = {DataConfig: "data", TradingConfig: "trading"}  # sections of their own, to which commands refer
SCALARS = {
    float: "number",
    int: "whole number",
    str: "text",
    bool: "true or false",
    Path: "path",
    types.NoneType: "null",
}
WIDTH = 96  # of a terminal, in columns
INTRODUCTION = """---
hide: [navigation]
---

# Every configuration key

Made of the code when this page was built, so that it cannot be out of date.

A configuration is a YAML file; keys are nested at their dots. Any key may also follow on the command line, where it
wins: `python -m tournament run configs/smoke.yaml search.candidates=8 seed=3`. What is left out has its default. An
unknown key, a wrong type or an impossible value is refused in one line that names the key, the value and what would
be right.

`[]` in a key stands for each entry of a list, `NAME` for a key of your own. A section with several *kinds* is told by
its `kind`, and has that kind's keys.
"""
FEATURES = """## Features: `features` {{#features}}

A list of names, or names with parameters, as in `[{{log_return: {{horizons: [1, 5]}}}}, rsi, observed]`. By default:
{names}.
"""


def configuration() -> str:
    """The page of every key: a section for each command, a table for each of its components."""
    names = ", ".join(f"`{part.name}`" for part in FeatureSpec.default().transforms)
    return "\n".join(
        [
            INTRODUCTION,
            *_tables(DataConfig, "## Bars: `data`", "data", "data"),
            FEATURES.format(names=names),
            *(_table(cls, f"### `{name}`", name, f"features-{name}") for name, cls in sorted(REGISTRY.items())),
            *_tables(TradingConfig, "## Trading: `trading`", "trading", "trading"),
            *_tables(TrainConfig, "## A training: `python -m podracer train FILE`", "", "training"),
            *_tables(TournamentConfig, "## A tournament: `python -m tournament run FILE`", "", "tournament"),
            *_tables(ServeConfig, "## The endpoint: `python -m serve run BUNDLE --config FILE`", "", "endpoint"),
            *_tables(PaperConfig, "## The desk: `python -m paper run FILE`", "", "desk"),
            *_tables(ExchangeConfig, "## The local exchange: `python -m paper exchange FILE`", "", "exchange"),
            *_tables(ReviewConfig, "## A desk's report: `python -m paper report DESK FILE`", "", "report"),
        ]
    )


def commands() -> str:
    """The page of every command: what `--help` prints."""
    parts = ["---\nhide: [navigation]\n---\n\n# Every command\n\nWhat `--help` printed when this page was built.\n"]
    for room in ROOMS:
        whole = _help(room)
        examples = whole[whole.find("\nexamples:") :] if "\nexamples:" in whole else ""
        parts += [f"## `python -m {room}`\n", _block(whole)]
        listed = whole.partition("  COMMAND\n")[2].partition("\n\n")[0]
        for name in re.findall(r"^    ([a-z]+)(?:  .*)?$", listed, re.MULTILINE):
            text = _help(room, name)
            if examples:
                text = text.removesuffix(examples)  # shown above
            text, settings, _ = text.partition("\nsettings:")
            parts += [f"### `python -m {room} {name}`\n", _block(text)]
            if settings:
                parts.append("Its settings are in [every configuration key](configuration.md).\n")
    return "\n".join(parts)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by mkdocs: the generated pages join the written ones."""
    from mkdocs.structure.files import File

    for path, content in (("reference/configuration.md", configuration()), ("reference/commands.md", commands())):
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A link that leaves docs/ leads to a file of the repository: on the site it is named, there is nothing to open."""
    depth = page.file.src_uri.count("/")
    return re.sub(rf"(?<!!)\[([^\]]+)\]\((?:\.\./){{{depth + 1}}}([^)]+)\)", _named, markdown)


def _named(link: re.Match[str]) -> str:
    text, path = link.groups()
    return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}`)"


def _tables(cls: type, heading: str, prefix: str, anchor: str, whole: Any = None) -> Iterator[str]:
    """The table of a component, then those of its components; defaults are those of `whole`, if given."""
    yield _table(cls, heading, prefix, anchor, whole)
    for field, key, kind, value in _fields(cls, prefix, whole):
        inside = key + {list: "[]", tuple: "[]", dict: ".NAME"}.get(typing.get_origin(kind), "")
        for component, chosen, place in _components(kind, field.name, anchor):
            if place != SHARED.get(component):
                title = f"### `{inside}` of kind `{chosen}`" if chosen else f"### `{inside}`"
                given = value if isinstance(value, component) else None
                yield from _tables(component, title, inside, place, given)


def _table(cls: type, heading: str, prefix: str, anchor: str, whole: Any = None) -> str:
    rows = []
    for field, key, kind, value in _fields(cls, prefix, whole):
        name, metadata = field.name, field.metadata
        links = [f"[{chosen or name}](#{place})" for _, chosen, place in _components(kind, name, anchor)]
        if kind is FeatureSpec:
            links = [f"[{name}](#{name})"]
        what = ", ".join(links) + _around(kind) if links else _type(kind, metadata)
        rows.append(f"| `{key}` | {what} | {_shown(value, bool(links))} | {_plain(metadata.get('help', ''))} |\n")
    table = "| key | type | default | meaning |\n|---|---|---|---|\n" + "".join(rows) if rows else "No parameters.\n"
    return f"{heading} {{#{anchor}}}\n\n{_plain(inspect.getdoc(cls) or '')}\n\n{table}"


def _fields(cls: type, prefix: str, whole: Any) -> Iterator[tuple[dataclasses.Field[Any], str, Any, Any]]:
    """Field, key, type and default of everything that a configuration may say."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.init:
            key = f"{prefix}.{field.name}" if prefix else field.name
            made = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            yield field, key, hints[field.name], getattr(whole, field.name, made)


def _components(kind: Any, name: str, anchor: str) -> list[tuple[type, str, str]]:
    """The dataclasses that a field may hold, with its kind if there are several, and the anchor of its table."""
    found = list(_dataclasses(kind))
    if len(found) == 1 and SHARED.get(found[0]) == name:
        return [(found[0], "", name)]
    kinds = [_kind_of(component) if len(found) > 1 else "" for component in found]
    return [
        (component, chosen, "-".join(filter(None, (anchor, name, chosen)))) for component, chosen in zip(found, kinds)
    ]


def _dataclasses(kind: Any) -> Iterator[type]:
    if dataclasses.is_dataclass(kind) and not hasattr(kind, "from_config"):
        yield typing.cast(type, kind)
    elif typing.get_origin(kind) is not Literal:
        for argument in typing.get_args(kind):
            yield from _dataclasses(argument)


def _around(kind: Any) -> str:
    within = {list: ": a list of them", tuple: ": a list of them", dict: ": one for each name"}
    return within.get(typing.get_origin(kind), "") + (", or null" if types.NoneType in typing.get_args(kind) else "")


def _kind_of(component: type) -> str:
    return str(typing.get_args(typing.get_type_hints(component)["kind"])[0])


def _shown(value: Any, component: bool) -> str:
    """As YAML writes it; of a component only its kind, for its keys have a table."""
    if value is dataclasses.MISSING:
        return "required"
    if isinstance(value, DataConfig):
        return f"kind `{value.source.kind}`"
    if component and value not in (None, [], {}):
        return f"kind `{value.kind}`" if hasattr(value, "kind") else "as there"
    text = yaml.safe_dump(to_dict(value), default_flow_style=True, width=1000, allow_unicode=True)
    return f"`{text.strip().removesuffix('...').strip()}`"


def _type(kind: Any, bounds: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (list, tuple):
        return f"list: {_type(arguments[0], bounds)}"
    if origin is dict:
        return f"keys, each with {_type(arguments[1], bounds)}"
    if arguments:
        return ", or ".join(_type(argument, bounds) for argument in arguments)
    signs = (("low", "at least"), ("above", "above"), ("high", "at most"), ("below", "below"))
    limits = [f"{sign} {bounds[name]:,}" for name, sign in signs if bounds.get(name) is not None]
    return SCALARS[kind] + (f" {' and '.join(limits)}" if limits and kind in (int, float) else "")


def _plain(text: str) -> str:
    """Text whose signs mean themselves, also in a table."""
    return re.sub(r"([|*<])", r"\\\1", text)


def _help(room: str, *words: str) -> str:
    """What the command prints, as it would on a terminal of a certain width."""
    main, printed = importlib.import_module(f"{room}.__main__").main, io.StringIO()
    with (
        patch.object(sys, "argv", [room, *words, "--help"]),
        patch.dict(os.environ, {"COLUMNS": str(WIDTH), "NO_COLOR": "1"}),
        redirect_stdout(printed),
        suppress(SystemExit),
    ):
        main()
    return printed.getvalue().rstrip()


def _block(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```\n"
