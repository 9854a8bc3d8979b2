"""``docs/settings-reference.md``: every key of every table, from the settings classes.

Types, ranges and defaults are those of the ``attrs`` fields; the text of a key is the string under
its field, that of a table its class's docstring.
"""

import ast
import inspect
import textwrap
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, get_args, get_origin

import attrs

from trio_feed.model import Interval
from trio_feed.settings import Settings
from trio_feed.settings.databases import DatabaseUrl
from trio_feed.settings.fields import RELOADED, Duration, Secret


@dataclass(frozen=True)
class Key:
    name: str
    kind: str
    default: str
    text: str
    reloaded: bool


@dataclass(frozen=True)
class Table:
    """``path`` as it stands in a file: ``[server]``, ``[[auth.api_keys]]``."""

    path: str
    text: str
    keys: tuple[Key, ...]


def tables() -> list[Table]:
    """All of them, in the order of the classes."""
    return list(_tables(Settings, "", reloaded=False, seen={}))


def _tables(cls: type, path: str, *, reloaded: bool, seen: dict[type, str]) -> Iterator[Table]:
    if cls in seen:
        yield Table(path, f"{_text_of(cls)} The keys are those of `{seen[cls]}`.", ())
        return
    seen[cls] = path
    texts, types = _texts(cls), typing.get_type_hints(cls)
    keys: list[Key] = []
    below: list[tuple[type, str, bool]] = []
    for each in attrs.fields(cls):
        again = reloaded or bool(each.metadata.get("reloaded"))
        inner, many = _class_of(types[each.name])
        if inner is not None and inner is not cls:
            below.append((inner, _below(path, each.name, many), again))
            if not many:
                continue
        kind, text = _kind(types[each.name], each.validator), texts.get(each.name, "")
        keys.append(Key(each.name, kind, _default(each), text, again))
    if path:
        yield Table(path, _text_of(cls), tuple(keys))
    for inner, where, again in below:
        yield from _tables(inner, where, reloaded=again, seen=seen)


def _below(path: str, name: str, many: bool) -> str:
    """``many``: a list of tables."""
    name = f"{name}.<venue>" if name == "exchanges" else name
    whole = f"{path.strip('[]')}.{name}".lstrip(".")
    return f"[[{whole}]]" if many and name != "exchanges.<venue>" else f"[{whole}]"


def _class_of(kind: Any) -> tuple[type | None, bool]:
    """The settings class that a field holds, and whether it holds several."""
    if attrs.has(kind):
        return kind, False
    inner = [each for each in get_args(kind) if isinstance(each, type) and attrs.has(each)]
    return (inner[0], True) if inner else (None, False)


def _text_of(cls: type) -> str:
    """A class's docstring without the name of its table."""
    text = " ".join(inspect.getdoc(cls).split())  # type: ignore[union-attr]
    found = text.partition("``: ")[2] or text.partition(": ")[2]
    return found[:1].upper() + found[1:]


def _texts(cls: type) -> dict[str, str]:
    """The string under each field."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(words))),
            ):
                found[name] = " ".join(words.split())
    return found


_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def _kind(kind: Any, validator: Any) -> str:
    if isinstance(kind, type) and kind in _NAMES:
        low, high = getattr(validator, "low", None), getattr(validator, "high", None)
        return _NAMES[kind] if low is None else f"{_NAMES[kind]}, {_number(low)} to {_number(high)}"
    if kind is DatabaseUrl:
        return "URL, its password secret"
    if kind is Secret:
        return "text, secret"
    if kind is Duration:
        return "`90s` `30m` `36h` `7d` `2w` `forever`"
    if get_origin(kind) is Literal:
        return ", ".join(f"`{each}`" if each else "empty" for each in get_args(kind))
    if kind is Interval:
        return "interval"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " ".join(f"`{each.value}`" for each in kind)
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        return "list of tables" if attrs.has(inner) else f"list: {_kind(inner, None)}"
    if get_origin(kind) is not None and issubclass(get_origin(kind), Mapping):
        name, value = get_args(kind)
        return f"table: {_kind(name, None)} = {_kind(value, None)}"
    if attrs.has(kind):
        return "table"
    return str(kind)


def _number(value: float) -> str:
    if value == 2**63 - 1:
        return "2^63-1"
    return f"{value:,.0f}" if abs(value) < 1e15 and value == int(value) else f"{value:g}"


def _default(field: "attrs.Attribute[Any]") -> str:
    made = field.default
    if isinstance(made, attrs.Factory):  # type: ignore[arg-type]
        made = made.factory()
    if field.converter is not None:
        made = field.converter(made)
    text = _toml(made)
    return f"`{text}`" if text else ""


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, tuple):
        return " ".join(map(_toml, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{_toml(key)} = {_toml(each)}" for key, each in value.items())
    if isinstance(value, float):
        return f"{value:g}" if value < 1e6 else _number(value).replace(",", "")
    return str(value).strip("'")


def page() -> str:
    """The text of ``docs/settings-reference.md``.  Raises SystemExit for a key without a text."""
    found = tables()
    silent = [f"{t.path} {key.name}" for t in found for key in t.keys if not key.text]
    if silent:
        raise SystemExit(f"no text stands under {', '.join(silent)}")
    lines = [_HEAD]
    for table in found:
        lines += ["", f"## {table.path.strip('[]')}", "", f"`{table.path}`. {table.text}"]
        if table.keys:
            lines += ["", "| key | type | default | meaning |", "|---|---|---|---|"]
        for key in table.keys:
            mark = " ↻" if key.reloaded else ""
            cells = [f"`{key.name}`{mark}", key.kind, key.default, key.text]
            lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("``", "`")


assert RELOADED == {"reloaded": True}
_HEAD = """# Every setting

<!-- Made by scripts/pages of the settings classes in trio_feed/settings/; edit those, not this. -->

Every table and key with type, range and default. What they are good for, and how to let others in:
[settings.md](settings.md). Key `b` of table `a` is `TRIO_FEED__A__B` in the environment and
`--set a.b=value` on the command line; a list of tables is written as TOML there. `↻`: a change
comes into force with SIGHUP; all others want a restart. Wherever a proxy table is wanted a URL may stand,
or a list of both: a chain."""
