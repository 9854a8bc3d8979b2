"""The values of messages as MessagePack: an array of a class's fields in their order.  Pure.

Decimals are strings, digit by digit.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Generic, TypeVar, get_args, get_type_hints

import attrs
import msgspec
from attrs import frozen

from ..model import ChannelMessage, Kline

T = TypeVar("T")
_BIG = b"\xc1"
"""MessagePack never begins with it: what follows is JSON, for numbers beyond 64 bits."""


class BadItem(ValueError):
    """Bytes that are not what this version writes."""


@frozen
class Form(Generic[T]):
    """One class of values as an array of its fields, in their order."""

    make: Callable[..., T]
    fields: Callable[[Any], tuple[Any, ...]]
    binary: "msgspec.msgpack.Decoder[Any]"
    text: "msgspec.json.Decoder[Any]"

    def write(self, value: T) -> bytes:
        row = self.fields(value)
        try:
            return msgspec.msgpack.encode(row)
        except OverflowError:
            return _BIG + msgspec.json.encode(row)

    def read(self, body: bytes) -> T:
        try:
            if body[:1] == _BIG:
                return self.make(*self.text.decode(body[1:]))
            return self.make(*self.binary.decode(body))
        except msgspec.MsgspecError as error:
            raise BadItem(f"{self.make}: {error}") from None


def _form(made: type[T]) -> Form[T]:
    names = [field.name for field in attrs.fields(made)]  # type: ignore[arg-type]
    hints = get_type_hints(made)
    row: Any = tuple[tuple(hints[name] for name in names)]  # type: ignore[misc]
    return Form(made, attrgetter(*names), msgspec.msgpack.Decoder(row), msgspec.json.Decoder(row))


KLINE = _form(Kline)
LINES = [_form(made) for made in get_args(get_type_hints(ChannelMessage)["data"])]
PLACES = {form.make: place for place, form in enumerate(LINES)}


def candle_bytes(kline: Kline) -> bytes:
    return KLINE.write(kline)


def candle_of(body: bytes) -> Kline:
    """Raises BadItem."""
    return KLINE.read(body)
