"""Typed configuration: dataclasses, YAML and command-line overrides, validated strictly.

A component owns a dataclass; a command composes them. Whatever is unknown, of the wrong type or
impossible becomes one line with the key, the value and what would be right.

>>> @dataclass(frozen=True)
... class Costs:
...     commission_bp: float = setting(0.5, low=0, help="commission per trade, in basis points")
>>> load(Costs, overrides=["commission_bp=1"])
Costs(commission_bp=1.0)
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import operator
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from kit.errors import UserError

T = TypeVar("T")
COMMAND_LINE = "command line"

_hints = functools.cache(typing.get_type_hints)  # it compiles every annotation anew


def setting(
    default: Any = dataclasses.MISSING,
    *,
    help: str = "",
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A dataclass field with a help text and bounds: `low <= value <= high`, `above < value < below`."""
    metadata = {"help": help, "low": low, "high": high, "above": above, "below": below}
    if isinstance(default, list | dict | set) or dataclasses.is_dataclass(default):
        made = default
        return dataclasses.field(default_factory=lambda: _copy(made), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def load(cls: type[T], file: str | Path | None = None, overrides: Sequence[str] = ()) -> T:
    """Build `cls` from a YAML file and `a.b=value` overrides; the overrides win."""
    tree = read_yaml(file) if file else {}
    origin: dict[str, str] = {}
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise UserError(f"{COMMAND_LINE}: {item!r} is not an override; write key=value, e.g. costs.commission_bp=1")
        origin[key] = COMMAND_LINE
        _put(tree, key, _parse_yaml(text, COMMAND_LINE, key))
    return build(cls, tree, str(file) if file else COMMAND_LINE, origin)


def build(cls: type[T], tree: Any, source: str = "configuration", origin: Mapping[str, str] | None = None) -> T:
    """Build `cls` from plain data; `source` is named in complaints, `origin` per key goes before it."""
    return typing.cast(T, _convert(cls, tree, _Place(source, dict(origin or {})), {}))


def to_dict(value: Any) -> Any:
    """The plain data that `build` turns back into the same value."""
    if hasattr(value, "to_config"):
        return value.to_config()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {key: to_dict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_dict(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def differences(ours: Any, theirs: Any, but: Sequence[str] = (), key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every dotted key at which two trees of plain data differ, with both values; `but` are left out at the top."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in {**ours, **theirs}:
            if name not in but:
                inside = f"{key}.{name}" if key else name
                yield from differences(ours.get(name), theirs.get(name), (), inside)
    elif ours != theirs:
        yield key, ours, theirs


def to_yaml(value: Any) -> str:
    return yaml.safe_dump(to_dict(value), sort_keys=False, allow_unicode=True)


def describe(cls: type, prefix: str = "", whole: Any = None) -> Iterator[str]:
    """One line per key: `key: type = default  help`, for `--help`; defaults are those of `whole`, if given."""
    for field in dataclasses.fields(cls):
        kind = _hints(cls)[field.name]
        key, default = f"{prefix}{field.name}", getattr(whole, field.name, _default_of(field))
        options: list[Any] = [a for a in typing.get_args(kind) if dataclasses.is_dataclass(a)]
        if dataclasses.is_dataclass(kind) and not hasattr(kind, "from_config"):
            yield from describe(typing.cast(type, kind), f"{key}.", default)
        elif len(options) > 1:  # told apart by their `kind`
            for option in options:
                chosen = typing.get_args(_hints(option)["kind"])[0]
                yield f"{key}.kind: {chosen}  {(option.__doc__ or '').strip().splitlines()[0]}"
                lines = describe(option, f"{key}.", default if isinstance(default, option) else None)
                yield from (f"  {line}" for line in lines if f"{key}.kind:" not in line)
        else:
            shown = "(required)" if default is dataclasses.MISSING else f"= {_show_default(default)}"
            yield f"{key}: {_name(kind)} {shown}  {field.metadata.get('help', '')}".rstrip()


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is given twice, where YAML would silently keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_StrictLoader.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: str(node.value))  # dates stay text


def read_yaml(file: str | Path) -> dict[str, Any]:
    """A YAML file as a mapping; an empty file is an empty one."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: byte {error.start} is not UTF-8 text; expected a YAML file") from None
    tree = _parse_yaml(text, str(file))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{file}: holds {_show(tree)}; expected keys with values, e.g. seed: 7")
    return tree


def _parse_yaml(text: str, source: str, key: str = "") -> Any:
    try:
        return yaml.load(text, _StrictLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark and not key else ""
        name = f" {key} = {text!r}" if key else ""
        raise UserError(f"{source}{where}:{name} is not valid YAML: {getattr(error, 'problem', error)}") from None


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for depth, part in enumerate(parents):
        inner = tree.setdefault(part, {})
        if not isinstance(inner, dict):
            parent = ".".join(parents[: depth + 1])
            raise UserError(f"{COMMAND_LINE}: {dotted}: {parent} is {_show(inner)}, which has no keys")
        tree = inner
    tree[last] = value


@dataclass(frozen=True)
class _Place:
    """Where a value stands: for complaints."""

    source: str
    origin: dict[str, str]
    key: str = ""

    def inside(self, name: str) -> _Place:
        return _Place(self.source, self.origin, f"{self.key}.{name}" if self.key else name)

    def refuse(self, value: Any, right: str) -> UserError:
        return UserError(f"{self._where()}: {self.key or 'the whole'} = {_show(value)}: {right}")

    def missing(self, right: str) -> UserError:
        return UserError(f"{self._where()}: {self.key}: is missing; expected {right}")

    def unknown(self, name: str, known: Sequence[str], value: Any) -> UserError:
        place = self.inside(name)
        near = difflib.get_close_matches(name, known, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
        return UserError(f"{place._where()}: {place.key} = {_show(value)}: unknown key; {hint}")

    def _where(self) -> str:
        for key, source in self.origin.items():
            if self.key == key or self.key.startswith(f"{key}."):
                return source
        return self.source


def _convert(kind: Any, value: Any, at: _Place, bounds: Mapping[str, Any], default: Any = None) -> Any:
    """`default` is what stands where nothing is given: keys of a component that are not named keep its values."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if hasattr(kind, "from_config"):
        try:
            return kind.from_config(value)
        except ValueError as error:
            raise at.refuse(value, str(error)) from None
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, at, bounds, default)
    if dataclasses.is_dataclass(kind):
        return _convert_dataclass(typing.cast(type, kind), value, at, default)
    if origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in arguments):
            near = difflib.get_close_matches(str(value), [str(a) for a in arguments], 1, 0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise at.refuse(value, f"expected one of {', '.join(map(str, arguments))}{hint}")
        return value
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            raise at.refuse(value, f"expected {_name(kind)}, e.g. [{_example(arguments[0])}]")
        return origin(_convert(arguments[0], item, at.inside(str(i)), bounds) for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise at.refuse(value, f"expected {_name(kind)}")
        keys = [_convert(arguments[0], key, at.inside(str(key)), {}) for key in value]
        return dict(zip(keys, (_convert(arguments[1], v, at.inside(str(k)), bounds) for k, v in value.items())))
    return _within(_scalar(kind, value, at), at, bounds)


def _convert_union(arguments: tuple[Any, ...], value: Any, at: _Place, bounds: Mapping[str, Any], default: Any) -> Any:
    """`X | None`, or dataclasses told apart by their `kind`."""
    if value is None and type(None) in arguments:
        return None
    options = [a for a in arguments if a is not type(None)]
    if len(options) == 1:
        return _convert(options[0], value, at, bounds, default)
    if not isinstance(value, dict):
        raise at.refuse(value, "expected keys with values, among them kind")
    by_kind = {typing.get_args(_hints(option)["kind"])[0]: option for option in options}
    kind = value.get("kind", getattr(default, "kind", None))
    chosen = _convert(Literal[tuple(by_kind)], kind, at.inside("kind"), {})
    return _convert(by_kind[chosen], value, at, bounds, default)


def _convert_dataclass(kind: type, value: Any, at: _Place, default: Any = None) -> Any:
    if isinstance(value, kind):
        return value
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise at.refuse(value, f"expected keys with values; known keys: {', '.join(_names(kind))}")
    hints, known, arguments = _hints(kind), _names(kind), {}
    for name in value:
        if name not in known:
            raise at.unknown(str(name), known, value[name])
    for field in dataclasses.fields(kind):
        if field.name in value:
            inner = getattr(default, field.name) if isinstance(default, kind) else _default_of(field)
            arguments[field.name] = _convert(
                hints[field.name], value[field.name], at.inside(field.name), field.metadata, inner
            )
        elif isinstance(default, kind):
            continue
        elif field.init and _default_of(field) is dataclasses.MISSING:
            raise at.inside(field.name).missing(_name(hints[field.name]))
    try:
        if isinstance(default, kind):
            return dataclasses.replace(typing.cast(Any, default), **arguments)
        return kind(**arguments)
    except ValueError as error:  # a rule between keys, from __post_init__
        raise at.refuse(to_dict(arguments), str(error)) from None


def _scalar(kind: Any, value: Any, at: _Place) -> Any:
    if kind in (float, int) and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:  # YAML reads 1e-3 as text
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan  # refused below
        if math.isfinite(number) and (kind is float or number == int(number)):
            return number if kind is float else value if isinstance(value, int) else int(number)
    elif kind is Path and isinstance(value, str) and value:
        return Path(value)
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise at.refuse(value, f"expected {_name(kind)}, e.g. {_example(kind)}")


def _within(value: Any, at: _Place, bounds: Mapping[str, Any]) -> Any:
    rules = (
        ("low", operator.ge, "at least"),
        ("above", operator.gt, "above"),
        ("high", operator.le, "at most"),
        ("below", operator.lt, "below"),
    )
    stated = [(rule, words, bounds[name]) for name, rule, words in rules if bounds.get(name) is not None]
    if isinstance(value, int | float) and not all(rule(value, bound) for rule, _, bound in stated):
        raise at.refuse(value, f"must be {' and '.join(f'{words} {bound:g}' for _, words, bound in stated)}")
    return value


def _names(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if field.init]


def _default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _copy(value: Any) -> Any:
    return value if dataclasses.is_dataclass(value) else value.copy()


def _name(kind: Any) -> str:
    names = {float: "a number", int: "a whole number", str: "text", bool: "true or false", Path: "a path"}
    if kind in names:
        return names[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if a is type(None) else _name(a) for a in arguments)
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (list, tuple):
        return f"a list of {_name(arguments[0])}"
    if origin is dict:
        return f"keys with {_name(arguments[1])}"
    return getattr(kind, "__name__", str(kind))


def _example(kind: Any) -> str:
    return {float: "0.5", int: "7", str: "abc", bool: "true", Path: "bars.parquet"}.get(kind, "...")


def _show_default(value: Any) -> str:
    if value is None or isinstance(value, bool):  # as YAML writes them
        return {None: "null", True: "true", False: "false"}[value]
    return _show(to_dict(value))


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
