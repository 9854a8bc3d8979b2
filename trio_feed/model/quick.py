"""Values that are made for every message, in half the time.

The ``__init__`` that attrs writes for a frozen class goes around the lock field by field: 70 ns for
each, a seventh of what a trade costs in all (docs/performance.md).  Here the object is open
while it is being made: it begins as an instance of a twin with the same slots and no lock.

A call of a class looks for ``__new__`` and ``__init__`` and hands both the arguments; where a
thousand are made at once, :func:`maker` takes a third less.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import attrs

_P = ParamSpec("_P")
_T = TypeVar("_T")
_set_class = object.__dict__["__class__"].__set__
_makers: dict[Any, Callable[..., Any]] = {}


def quick(cls: type[_T]) -> type[_T]:
    """Decorator above ``@frozen(weakref_slot=False)``.  Of fields it knows names and plain
    defaults; raises TypeError for a class with another layout than its slots."""
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(cls)  # type: ignore[arg-type]
    names = [field.name for field in fields]
    opened = type(cls.__name__, (), {"__slots__": tuple(names)})
    known: dict[str, Any] = {"_set_class": _set_class, "_opened": opened, "_closed": cls}
    arguments = []
    for field in fields:
        arguments.append(field.name)
        if field.default is not attrs.NOTHING:
            known[f"_default_{field.name}"] = field.default
            arguments[-1] += f"=_default_{field.name}"
    filled = [*(f" self.{name} = {name}" for name in names), " _set_class(self, _closed)"]
    lines = [
        f"def __init__(self, {', '.join(arguments)}):",
        " _set_class(self, _opened)",
        *filled,
        f"def make({', '.join(arguments)}):",
        " self = _opened()",
        *filled,
        " return self",
    ]
    exec("\n".join(lines), known)
    _set_class(cls.__new__(cls), opened)  # the same layout, or TypeError
    cls.__init__ = known["__init__"]  # type: ignore[method-assign]
    _makers[cls] = known["make"]
    return cls


def maker(cls: Callable[_P, _T]) -> Callable[_P, _T]:
    """A function that makes what a call of this :func:`quick` class makes.  Raises KeyError for
    another class."""
    return _makers[cls]
