"""Long work in portions, so that nobody else waits for the whole of it.

The loop runs every task in turn, so a portion is what all others wait for.  Who has many such works
does them one after the other: side by side, each would have its portion in every turn.
"""

from collections.abc import AsyncGenerator, Iterable
from typing import TypeVar

import trio

T = TypeVar("T")

PORTION = 50
"""Candles written as text, or events checked: about a millisecond."""


async def in_portions(items: Iterable[T], size: int = PORTION) -> AsyncGenerator[T, None]:
    """The items, with a turn for everybody else after each ``size`` of them."""
    for number, item in enumerate(items, 1):
        yield item
        if number % size == 0:
            await trio.lowlevel.checkpoint()
