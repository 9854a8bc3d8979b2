"""Lists in an exchange's REST answers, read row by row: one odd row does not spoil the others."""

from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec
from attrs import frozen

from ..errors import BadMessage
from ..rest_dialects import MALFORMED

_T = TypeVar("_T")
_Row = TypeVar("_Row")
_raw_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode


@frozen
class Rows(Generic[_T]):
    """What an answer holds.

    ``bad`` are the rows that cannot be read (null, a field missing, a number that is none), for
    the caller to count and log.  ``good`` is not empty where ``bad`` is not: an answer of which no
    row can be read is a BadMessage.  A row that is absent from ``good`` while ``bad`` has entries
    may exist at the exchange, so it proves no hole.
    """

    good: list[_T]
    bad: tuple[BadMessage, ...] = ()


def read_rows(
    body: bytes | msgspec.Raw,
    all_rows: Callable[[bytes | msgspec.Raw], list[_Row]],
    one_row: Callable[[bytes | msgspec.Raw], _Row],
    make: Callable[[_Row], _T | None],
    *,
    newest_first: bool = False,
    key: Callable[[_T], int] | None = None,
) -> Rows[_T]:
    """A JSON list -> its rows, ascending by ``key`` (without one: as they stand).

    ``all_rows`` decodes the list at once, which is the common case; ``one_row`` decodes the rows
    singly where that fails.  ``make`` returns None for a row that is to be left out without being
    bad.  Of two rows with the same ``key`` the one that is read later stays.

    Raises BadMessage where the body is not a list, rows are out of order, or no row is good.
    """
    bad: list[BadMessage] = []
    rows: list[_Row | None] = []
    try:
        rows.extend(all_rows(body))
    except MALFORMED:
        rows = _singly(body, one_row, bad)
    good: list[_T] = []
    for row in reversed(rows) if newest_first else rows:
        try:
            made = None if row is None else make(row)
        except BadMessage as error:
            bad.append(error if error.sample else BadMessage(str(error), str(row)))
            continue
        if made is None:
            continue
        if key is not None and good and key(made) <= key(good[-1]):
            if key(made) < key(good[-1]):
                raise BadMessage("rows are out of order", _sample(body))
            bad.append(BadMessage("a row twice", str(row)))
            good.pop()
        good.append(made)
    if bad and not good:
        raise BadMessage(f"no row can be read: {bad[0]}", bad[0].sample)
    return Rows(good, tuple(bad))


def _singly(
    body: bytes | msgspec.Raw,
    one_row: Callable[[bytes | msgspec.Raw], _Row],
    bad: list[BadMessage],
) -> list[_Row | None]:
    """The rows that fit their form, None for the others."""
    try:
        raws = _raw_rows(body)
    except MALFORMED as error:
        raise BadMessage(f"malformed: {error}", _sample(body)) from None
    rows: list[_Row | None] = []
    for raw in raws:
        try:
            rows.append(one_row(raw))
        except MALFORMED as error:
            bad.append(BadMessage(f"malformed row: {error}", _sample(raw)))
            rows.append(None)
    return rows


def _sample(raw: bytes | msgspec.Raw) -> str:
    return bytes(raw)[:200].decode(errors="replace")
