"""Files, environment and ``--set`` -> one :class:`Settings`, or one line about what is wrong."""

import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin

import attrs
from cattrs import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError

from ..errors import SettingsError
from .convert import CONVERTER, Raw, is_lengths, is_tuple, plain, read_value
from .databases import DatabaseUrl
from .fields import Duration, FieldError, Secret, masked_url
from .origins import ENV_PREFIX, Origins
from .proxies import ProxySettings, is_url, proxy_table
from .tables import Settings
from .twice import written_twice

Tree = dict[str, Any]


def load(
    files: Iterable[str | Path] = (),
    environ: Mapping[str, str] | None = None,
    assignments: Iterable[str] = (),
) -> Settings:
    """Merge ``files`` left to right, then ``TRIO_FEED__A__B=value``, then ``a.b=value``.

    Values from the environment and from assignments are read as TOML (``true``, ``5``,
    ``["1m"]``) where the field is not a string.  Raises SettingsError, which names the file or
    the variable.
    """
    return load_with_origins(files, environ, assignments)[0]


def load_with_origins(
    files: Iterable[str | Path] = (),
    environ: Mapping[str, str] | None = None,
    assignments: Iterable[str] = (),
) -> tuple[Settings, Origins]:
    """The same, and where each value was written."""
    tree: Tree = {}
    origins = Origins()
    for file in files:
        read = _read(Path(file))
        _merge(tree, read)
        origins.note(read, str(file))
    for name, value in sorted((environ or {}).items()):
        if name.startswith(ENV_PREFIX):
            keys = [key.lower() for key in name.removeprefix(ENV_PREFIX).split("__")]
            _assign(tree, keys, value, name)
            origins.note(value, name, tuple(keys))
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        if not equals:
            raise SettingsError(path, "--set wants a.b=value")
        names = path.strip().split(".")
        _assign(tree, names, value.strip(), "--set")
        origins.note(value, "--set", tuple(names))
    try:
        return structure(tree), origins
    except SettingsError as error:
        raise origins.named(error) from None


def structure(tree: Tree) -> Settings:
    """A plain tree -> Settings.  Raises SettingsError naming the first wrong key's path."""
    _check_tables(tree, Settings, "")
    try:
        return CONVERTER.structure(tree, Settings)
    except ClassValidationError as error:
        _explain(error, "")


def _check_tables(tree: Any, kind: Any, path: str) -> None:
    """Every table is a table, so that what follows only meets wrong keys and values."""
    if kind is ProxySettings:
        tree = _proxy_table(tree, path)
    if not isinstance(tree, dict):
        raise SettingsError(path[1:], f"{_shown(tree)} is a value where a table is wanted")
    for name, value in tree.items():
        inner = _table_kind(kind, name)
        if inner is not None and is_tuple(inner):
            _check_array(value, get_args(inner)[0], f"{path}.{name}")
        elif inner is not None:
            _check_tables(value, inner, f"{path}.{name}")


def _proxy_table(value: Any, path: str) -> Any:
    try:
        return proxy_table(plain(value))
    except FieldError as error:
        raise SettingsError(f"{path}.{error.key}"[1:], str(error)) from None
    except ValueError as error:
        raise SettingsError(path[1:], str(error)) from None


def _check_array(value: Any, kind: Any, path: str) -> None:
    """An array of tables: ``[[a.b]]`` in a file, ``[{key = "value"}]`` elsewhere."""
    items = read_value(value)
    if not isinstance(items, list):
        raise SettingsError(path[1:], f"is no array of tables; write [[{path[1:]}]]")
    for index, item in enumerate(items):
        _check_tables(item, kind, f"{path}.{index}")


def _shown(value: Any) -> str:
    """For a message; what may hold a password or a key stays out of it."""
    if isinstance(value, list):
        return "a list"
    return "an address" if "@" in str(value) or "/" in str(value) else repr(value)


def _table_kind(kind: Any, name: str) -> Any:
    """The type of the table, or tuple of tables, ``name`` inside ``kind``; None: a plain value."""
    if get_origin(kind) is Mapping:
        return get_args(kind)[1]
    found = attrs.fields_dict(kind).get(name)
    if found is None or found.type is None:
        return None
    item = get_args(found.type)[0] if is_tuple(found.type) else found.type
    is_table = attrs.has(item) or (get_origin(item) is Mapping and not is_lengths(item))
    return found.type if is_table else None


def masked(settings: Settings) -> Tree:
    """The effective settings as a plain tree, secrets as ``***``, and so are keys in URLs."""

    def shown(_owner: type, attribute: "attrs.Attribute[Any] | None", value: Any) -> Any:
        if isinstance(value, DatabaseUrl):
            return value.shown
        if isinstance(value, Secret):
            return "***" if value else ""
        if isinstance(value, Duration):
            return str(value)
        if attribute is not None and attribute.name in ("rest_url", "websocket_url"):
            return masked_url(value)
        return value.value if isinstance(value, Enum) else value

    tree: Tree = _enums_to_values(attrs.asdict(settings, value_serializer=shown))
    return tree


def _enums_to_values(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _enums_to_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_enums_to_values(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def _read(file: Path) -> Tree:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(str(file), error.strerror or "cannot be read") from None
    except UnicodeDecodeError as error:
        raise SettingsError(str(file), f"not TOML: {error}") from None
    except tomllib.TOMLDecodeError as error:
        twice = written_twice(file.read_text(encoding="utf-8"), str(error))
        raise SettingsError(str(file), f"not TOML: {twice or error}") from None


_COLLECTED = ("api_keys", "publishers")
"""Arrays of tables that add up over files: a file per key is what ``trio_feed key`` prints."""


def _merge(into: Tree, new: Tree) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(_opened(into, key), dict):
            _merge(into[key], value)
        elif key in _COLLECTED and isinstance(value, list) and isinstance(into.get(key), list):
            into[key] = [*into[key], *value]
        else:
            into[key] = value


def _opened(tree: Tree, key: str) -> Any:
    """What stands at ``key``; a proxy's URL becomes its table, as something is to be added to it:
    the password from the environment, say."""
    if key == "proxy" and is_url(tree.get(key)):
        with suppress(ValueError):  # said later, where the path is known
            tree[key] = proxy_table(str(tree[key]))
    return tree.get(key)


def _assign(tree: Tree, path: list[str], text: str, origin: str) -> None:
    *tables, last = path
    if not text.isascii() and not is_unicode(text):  # bytes that the locale does not know
        raise SettingsError(".".join(path), f"is not UTF-8 ({origin})")
    if not all(path):
        raise SettingsError(".".join(path), f"an empty name in the path ({origin})")
    for table in tables:
        _opened(tree, table)
        tree = tree.setdefault(table, {})
        if not isinstance(tree, dict):
            raise SettingsError(".".join(path), f"{table} is a value, not a table ({origin})")
    tree[last] = Raw(text)


def is_unicode(text: str) -> bool:
    """Whether it can be written anywhere: no byte of another encoding, no half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _explain(error: BaseException, path: str) -> NoReturn:
    """Walk down to the first cause and say it in one line."""
    if isinstance(error, ClassValidationError):
        for cause, note in error.group_exceptions()[0]:
            _explain(cause, f"{path}.{note.name}")
        cause = error.group_exceptions()[1][0]
        if isinstance(cause, ForbiddenExtraKeysError):
            key = sorted(cause.extra_fields)[0]
            known = [a.name for a in attrs.fields(cause.cl)]
            near = get_close_matches(key.lower(), known, 1)
            what = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
            raise SettingsError(f"{path}.{key}"[1:], f"unknown; {what}") from None
        _explain(cause, path)
    if isinstance(error, IterableValidationError):
        for cause, place in error.group_exceptions()[0]:
            _explain(cause, f"{path}.{place.index}")
    if isinstance(error, FieldError):
        path = f"{path}.{error.key}"
    where = path[1:] or "settings"
    if isinstance(error, KeyError) or not str(error):
        raise SettingsError(where, f"wrong value ({type(error).__name__})") from None
    raise SettingsError(where, str(error)) from None
