"""Every event that the package can log, read from its source.

An event's name has to be a literal where it is logged, or where one of :data:`_WRAPPERS` is called;
a call whose name cannot be read is an error, so none can be missed.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEVELS = ("debug", "info", "warning", "error")
_WRAPPERS = {"say": 1, "_say": 1, "_complain": 0, "filled": 0, "Report": 0, "Troubles": 1}
"""Functions that log for their callers: at which place they take the name of the event.  (A
``_say`` without a level before the name takes it first.)  What they add is read inside of them."""
_BOUND_IN_DRIVER = ("venue",)
"""What the driver binds to each :class:`Report`."""
_OF_FILLED = ("info", ("stream", "candles", "first_ms", "last_ms"))
"""What ``reports.filled`` makes, in another file."""
_OF_TROUBLES = (("warning", "debug"), ("venue", "reason", "problem"))
"""What ``troubles.Troubles`` makes; more fields where it is called."""
_NAME = re.compile(r"[a-z]+\.[a-z_]+")
_SAMPLED = "left_out"
"""What ``SampledLines.say`` adds."""


class Unreadable(Exception):
    """A call logs an event whose name does not stand in the source."""


@dataclass
class Event:
    """``fields`` in the order in which they are met; ``more``: some are made at run time."""

    name: str
    levels: set[str] = field(default_factory=set)
    fields: dict[str, None] = field(default_factory=dict)


@cache
def events(root: Path = ROOT / "trio_feed") -> dict[str, Event]:
    """All events of the package, by name.  Raises Unreadable."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in root.rglob("*.py")}
    named = dict(_named_classes(trees.values()))
    found: dict[str, Event] = {}
    for path, tree in sorted(trees.items()):
        for name, levels, fields in _File(path, tree, named).events():
            event = found.setdefault(name, Event(name))
            event.levels |= set(levels)
            event.fields |= dict.fromkeys(fields)
    return dict(sorted(found.items()))


def _named_classes(
    trees: Iterable[ast.Module],
) -> Iterator[tuple[str, tuple[list[str], list[str]]]]:
    """Classes with a property ``event``: the names that it gives, and the keys of ``fields``."""
    for tree in trees:
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef):
                continue
            parts = {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}
            if "event" in parts:
                returned = _returned(parts["event"])
                fields = _keys(_returned(parts["fields"])) if "fields" in parts else []
                yield node.name, (_texts(returned), fields)


def _returned(function: "_Function") -> ast.expr:
    last = function.body[-1]
    assert isinstance(last, ast.Return), function.name
    assert last.value is not None, function.name
    return last.value


def _texts(node: ast.expr) -> list[str]:
    """Every text that an expression of literals can come to; none: it is made of something else."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.IfExp(body=body, orelse=orelse):
            return _texts(body) + _texts(orelse)
        case ast.FormattedValue(value=value):
            return _texts(value)
        case ast.JoinedStr(values=values):
            whole = [""]
            for part in values:
                whole = [before + text for before in whole for text in _texts(part)]
            return whole
    return []


def _keys(node: ast.expr) -> list[str]:
    if isinstance(node, ast.IfExp):
        return _keys(node.body) + _keys(node.orelse)
    if isinstance(node, ast.Dict):
        return [str(key.value) for key in node.keys if isinstance(key, ast.Constant)]
    return []


Found = tuple[str, list[str], list[str]]


class _File:
    def __init__(
        self, path: Path, tree: ast.Module, named: Mapping[str, tuple[list[str], list[str]]]
    ) -> None:
        self._path, self._named = path, named
        self._functions = [n for n in ast.walk(tree) if isinstance(n, _FUNCTIONS)]
        self._loggers = dict(_loggers(tree))
        self._tree = tree
        self._inside = {f.name: self._wrapper(f) for f in self._functions if f.name in _WRAPPERS}

    def events(self) -> Iterator[Found]:
        if self._path.name == "logs.py":  # the writing thread makes its one line without a logger
            for node in ast.walk(self._tree):
                if isinstance(node, ast.Dict) and "event" in (keys := _keys(node)):
                    yield _texts(node.values[0])[0], ["warning"], [k for k in keys if k != "event"]
        for call, function in _calls(self._tree, None):
            yield from self._of_call(call, function)

    def _of_call(self, call: ast.Call, function: "_Function | None") -> Iterator[Found]:
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        name = call.func.id if isinstance(call.func, ast.Name) else name
        levels = self._levels(call.func, function)
        named = _texts(call.args[0]) if call.args and name in LEVELS and not levels else []
        if any(map(_NAME.fullmatch, named)):
            raise Unreadable(f"{self._path.name}:{call.lineno}: {ast.unparse(call.func)}")
        if levels:
            yield from self._logged(call, levels, function)
        elif name in _WRAPPERS:
            yield from self._wrapped(call, name, function)

    def _levels(self, written: ast.expr, function: "_Function | None") -> list[str]:
        """The levels of what is called: a logger's method, or a name for one of two."""
        if isinstance(written, ast.Attribute) and written.attr in LEVELS:
            return [written.attr] if ast.unparse(written.value) in self._loggers else []
        if isinstance(written, ast.Name) and function is not None:
            for value in _assigned(function, written.id):
                if isinstance(value, ast.IfExp):
                    return self._levels(value.body, None) + self._levels(value.orelse, None)
        return []

    def _bound(self, written: ast.expr) -> list[str]:
        holder = written.value if isinstance(written, ast.Attribute) else None
        if holder is not None:
            return self._loggers.get(ast.unparse(holder), [])
        return []

    def _logged(
        self, call: ast.Call, levels: list[str], function: "_Function | None"
    ) -> Iterator[Found]:
        names = _texts(call.args[0])
        fields = [*self._bound(call.func), *_fields(call, function)]
        for keyword in call.keywords:  # **fields_of(it), of this file
            if keyword.arg is None and isinstance(keyword.value, ast.Call):
                made_by = ast.unparse(keyword.value.func)
                made = [_returned(f) for f in self._functions if f.name == made_by]
                fields += [key for each in made for key in _keys(each)]
        if isinstance(call.func, ast.Name) and function is not None:  # log = self._log.a if ...
            for value in _assigned(function, call.func.id):
                if isinstance(value, ast.IfExp):
                    fields = [*self._bound(value.body), *fields]
        if not names and isinstance(call.args[0], ast.Attribute) and call.args[0].attr == "event":
            yield from self._by_property(call.args[0].value, levels, fields)
            return
        if not names and (function is None or function.name not in _WRAPPERS):
            raise Unreadable(f"{self._path.name}:{call.lineno}: {ast.unparse(call)[:80]}")
        for name in names:
            yield name, levels, fields

    def _by_property(self, _of: ast.expr, levels: list[str], fields: list[str]) -> Iterator[Found]:
        """``log.info(news.event, ...)``: of the classes that this file can have got it from."""
        imported = {a.name for n in ast.walk(self._tree) if isinstance(n, ast.ImportFrom)
                    for a in n.names}  # fmt: skip
        own = {n.name for n in ast.walk(self._tree) if isinstance(n, ast.ClassDef)}
        reach = _REACHED.get(self._path.name, own | imported)
        known = [each for name, each in self._named.items() if name in reach]
        if not known:
            raise Unreadable(f"{self._path.name}: {ast.unparse(_of)}.event")
        for names, more in known:
            for name in names:
                yield name, levels, [*more, *fields]

    def _wrapped(
        self, call: ast.Call, wrapper: str, function: "_Function | None"
    ) -> Iterator[Found]:
        place, levels = _WRAPPERS[wrapper], self._levels(call.args[0], None) if call.args else []
        inner, added = self._inside.get(wrapper, ([], []))
        if wrapper == "_say" and not levels:
            place, levels = 0, inner
        if len(call.args) <= place:
            return
        names = [text for text in _texts(call.args[place]) if "." in text and " " not in text]
        fields = [*added, *_fields(call, function)]
        if wrapper in ("say", "_say"):
            fields.append(_SAMPLED)
        elif wrapper == "Report":
            levels = _texts(call.args[1]) if len(call.args) > 1 else ["info"]
            found = call.args[2] if len(call.args) > 2 else None
            fields = [*_BOUND_IN_DRIVER, *_table(found, function)]
        elif wrapper == "filled":
            levels, fields = [_OF_FILLED[0]], [*_BOUND_IN_DRIVER, *_OF_FILLED[1]]
        elif wrapper == "Troubles":
            levels, fields = list(_OF_TROUBLES[0]), [*_OF_TROUBLES[1]]
        elif wrapper == "_complain":
            levels = inner
        for name in names:
            yield name, levels, fields

    def _wrapper(self, function: "_Function") -> tuple[list[str], list[str]]:
        """The level at which a wrapper of this file logs, and the fields that it adds."""
        levels: list[str] = []
        fields: list[str] = []
        for node in ast.walk(function):
            if isinstance(node, ast.Call):
                first = node.args[0] if node.args else node.func
                levels += self._levels(node.func, None) or self._levels(first, None)
                fields += [k.arg for k in node.keywords if k.arg is not None]
        return levels, fields


_REACHED = {
    "clocks.py": {"ClockStepped", "ClockJudged"},
    "route.py": {"EgressNews"},
}
"""Files that log what another one's object calls itself."""
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _loggers(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """What a file calls its loggers, with the fields that are bound to each."""
    yield "structlog.get_logger()", []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and "get_logger" in ast.unparse(node.value):
            bound = [k.arg or "" for n in ast.walk(node.value) if isinstance(n, ast.Call)
                     for k in n.keywords]  # fmt: skip
            for target in node.targets:
                yield ast.unparse(target), bound
        elif isinstance(node, ast.Assign) and "log.bind(" in ast.unparse(node.value):
            assert isinstance(node.value, ast.Call)
            for target in node.targets:
                yield ast.unparse(target), [k.arg or "" for k in node.value.keywords]
        elif isinstance(node, ast.arg) and node.arg == "log":
            yield "log", ["venue"]  # what a caller binds


def _calls(
    node: ast.AST, function: _Function | None
) -> Iterator[tuple[ast.Call, _Function | None]]:
    """Every call below ``node``, with the innermost function that it stands in."""
    for each in ast.iter_child_nodes(node):
        if isinstance(each, ast.Call):
            yield each, function
        yield from _calls(each, each if isinstance(each, _FUNCTIONS) else function)


def _assigned(function: _Function, name: str) -> Iterator[ast.expr]:
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and any(ast.unparse(t) == name for t in node.targets):
            yield node.value


def _table(node: ast.expr | None, function: _Function | None) -> list[str]:
    """The keys of a table that is written there, or was given a name before in the function."""
    if isinstance(node, ast.Name) and function is not None:
        before = [each for each in _assigned(function, node.id) if each.lineno < node.lineno]
        return _keys(max(before, key=lambda each: each.lineno)) if before else []
    return [] if node is None else _keys(node)


def _fields(call: ast.Call, function: _Function | None) -> list[str]:
    found: list[str] = []
    for keyword in call.keywords:
        if keyword.arg is None:
            found += _table(keyword.value, function)
        elif keyword.arg != "exc_info":
            found.append(keyword.arg)
    return found
