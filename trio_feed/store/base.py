"""What a store does.  The rows it keeps are closed candles; a second one with the same series and
open time replaces the first (a correction), so there is never a double."""

from typing import Protocol

from attrs import frozen

from ..model import Hole, Kline, KlineMessage, Series


@frozen
class Tail:
    """The end of one stored series: its last closed candle and how it was numbered."""

    kline: Kline
    epoch: int
    offset: int


class KlineStore(Protocol):
    """Closed candles by series.  Times are unix milliseconds.

    ``put`` and ``put_hole`` are synchronous and never wait; ``room`` waits while too much is
    unwritten.  ``history`` and ``tails`` also see what is not on disk yet.  ``run`` writes until
    cancelled; whoever opened the store flushes and closes it.
    """

    epoch: int
    """Larger at each opening of the same store; the first half of every message's number."""

    def put(self, message: KlineMessage) -> None:
        """Keep a closed candle with its epoch and offset."""

    def put_hole(self, series: Series, hole: Hole) -> None:
        """Keep that the exchange itself has no candles there."""

    async def room(self) -> None:
        """Wait while more rows are pending than the settings allow."""

    async def history(
        self, series: Series, *, limit: int, start_ms: int | None = None, end_ms: int | None = None
    ) -> list[Kline]:
        """The last ``limit`` candles with start_ms <= open < end_ms, ascending; with ``start_ms``
        and no ``end_ms`` the first ``limit`` from there on."""

    async def tails(self) -> dict[Series, Tail]:
        """The last closed candle of every series."""

    async def first_open(self, series: Series) -> int | None:
        """Open time of the oldest candle of a series."""

    async def run(self) -> None:
        """Write batches until cancelled."""

    def pending(self) -> int:
        """Rows not yet on disk."""
