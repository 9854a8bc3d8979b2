"""How a value of a file, of the environment or of ``--set`` becomes a field's value."""

import tomllib
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

import attrs
import cattrs
from cattrs import ClassValidationError, IterableValidationError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn

from ..model import Channel, Interval
from .databases import DatabaseUrl
from .exchanges import ON_DEMAND, ExchangeSettings
from .fields import Duration, FieldError, Secret
from .proxies import ProxySettings, proxy_table


class Raw(str):
    """Text from the environment or the command line; the field decides what it is."""

    __slots__ = ()

    def value(self) -> Any:
        """Read as TOML (``true``, ``5``, ``["1m"]``), or as it stands where it is not TOML."""
        try:
            return tomllib.loads(f"value = {self}")["value"]
        except tomllib.TOMLDecodeError:
            return str(self)

    def text(self) -> str:
        """As a string, whatever it looks like; TOML quotes round it are taken off."""
        value = self.value()
        return value if isinstance(value, str) else str(self)


def read_value(value: Any) -> Any:
    return value.value() if isinstance(value, Raw) else value


def read_text(value: Any) -> Any:
    return value.text() if isinstance(value, Raw) else value


def _exactly(kind: type) -> Any:
    read = read_text if kind is str else read_value

    def check(value: Any, _type: Any) -> Any:
        value = read(value)
        if type(value) is not kind:
            raise TypeError(f"{value!r} is not {_KIND_NAMES[kind]}")
        return value

    return check


_KIND_NAMES = {str: "a string", int: "a whole number", bool: "true or false"}


def _number(value: Any, _type: Any) -> float:
    value = read_value(value)
    if type(value) not in (int, float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _secret(value: Any, _type: Any) -> Secret:
    value = read_text(value)
    if not isinstance(value, str):
        raise TypeError("the secret is not a string")
    return Secret(value)


def _database_url(value: Any, kind: Any) -> DatabaseUrl:
    return DatabaseUrl(_secret(value, kind).reveal())


def _interval(value: Any, _type: Any) -> Interval:
    value = read_text(value)
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not an interval such as 1m")
    return Interval.parse(value)


def _channel(value: Any, _type: Any) -> Channel:
    value = read_text(value)
    if value not in list(Channel):
        raise ValueError(f"{value!r} is not one of {', '.join(c.value for c in Channel)}")
    return Channel(value)


def is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


def is_lengths(kind: Any) -> bool:
    return get_origin(kind) is Mapping and get_args(kind) == (Interval, Duration)


def _is_choice(kind: Any) -> bool:
    return get_origin(kind) is Literal


def _structure_tuple(value: Any, kind: Any) -> tuple[Any, ...]:
    value = read_value(value)
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    inner = get_args(kind)[0]
    return tuple(_structure_item(item, inner, index) for index, item in enumerate(value))


def _structure_item(item: Any, kind: Any, index: int) -> Any:
    """What is wrong inside a table of an array is said with the table's index in the path."""
    expected = (ClassValidationError, ValueError) if attrs.has(kind) else ClassValidationError
    try:
        return CONVERTER.structure(item, kind)
    except expected as error:
        error.add_note(IterableValidationNote("item", index, kind))
        raise IterableValidationError("array", [error], tuple) from None


def _structure_lengths(value: Any, _kind: Any) -> dict[Interval, Duration]:
    """A table of interval -> duration; also inline, from the environment: {"1s" = "7d"}."""
    value = read_value(value)
    if not isinstance(value, dict):
        raise TypeError(f'{value!r} is no table such as {{"1s" = "7d"}}')
    found = {}
    for name, text in value.items():
        length = read_text(text)
        try:
            interval = Interval.parse(name)
            if not isinstance(length, str):
                raise ValueError(f"{length!r} is no length of time such as 36h, 7d, 2w or forever")
            found[interval] = Duration(length)
        except ValueError as error:
            raise FieldError(name, str(error)) from None
    return found


def _structure_choice(value: Any, kind: Any) -> Any:
    value = read_text(value)
    if value not in get_args(kind):
        raise ValueError(f"{value!r} is not one of {', '.join(get_args(kind))}")
    return value


def plain(value: Any) -> Any:
    """Text from outside, read; what stands in an `address` stays text."""
    if isinstance(value, dict) and isinstance(address := value.get("address"), Raw):
        return {**value, "address": address.text()}
    return read_value(value)


def _exchange_table(value: Any) -> Any:
    """``symbols = "on_demand"`` without brackets."""
    if isinstance(value, dict) and read_text(value.get("symbols")) == ON_DEMAND:
        return {**value, "symbols": [ON_DEMAND]}
    return value


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind in (str, int, bool):
        converter.register_structure_hook(kind, _exactly(kind))
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(Secret, _secret)
    converter.register_structure_hook(DatabaseUrl, _database_url)
    converter.register_structure_hook(Interval, _interval)
    converter.register_structure_hook(Channel, _channel)
    converter.register_structure_hook_func(is_tuple, _structure_tuple)
    converter.register_structure_hook_func(is_lengths, _structure_lengths)
    converter.register_structure_hook_func(_is_choice, _structure_choice)
    structure_proxy = make_dict_structure_fn(
        ProxySettings, converter, _cattrs_forbid_extra_keys=True
    )
    converter.register_structure_hook(
        ProxySettings, lambda value, kind: structure_proxy(proxy_table(plain(value)), kind)
    )
    structure_exchange = make_dict_structure_fn(
        ExchangeSettings, converter, _cattrs_forbid_extra_keys=True
    )
    converter.register_structure_hook(
        ExchangeSettings, lambda value, kind: structure_exchange(_exchange_table(value), kind)
    )
    return converter


CONVERTER = _make_converter()
