"""What a store does.  The rows it keeps are closed candles, one per series and open time: a
revision changes the values of its row, which keeps its number, and is remembered with its own."""

from collections.abc import Iterable
from typing import Protocol

from attrs import frozen

from ..model import Hole, Kline, KlineMessage, Series


@frozen
class Tail:
    """The end of one stored series: its last closed candle.

    ``settled_ms``: open time up to which everything is either stored or known not to exist at the
    exchange; at least that of ``kline``.
    """

    kline: Kline
    settled_ms: int


def settled_ms(last_ms: int, holes: Iterable[Hole]) -> int:
    """See :class:`Tail`: ``last_ms`` is the last stored candle, ``holes`` are the series' own."""
    return max([last_ms, *(hole.last_ms for hole in holes)])


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

    async def room(self) -> bool:
        """Wait while more rows are pending than the settings allow; whether it had to."""

    async def history(
        self, series: Series, *, limit: int, start_ms: int | None = None, end_ms: int | None = None
    ) -> list[Kline]:
        """The last ``limit`` candles with start_ms <= open < end_ms, ascending; with ``start_ms``
        and no ``end_ms`` the first ``limit`` from there on."""

    async def tails(self) -> dict[Series, Tail]:
        """The last closed candle of every series."""

    async def first_open(self, series: Series) -> int | None:
        """Open time of the oldest candle of a series."""

    async def after(
        self, series: Series, epoch: int, offset: int, *, closed_ms: int | None = None, limit: int
    ) -> list[KlineMessage] | None:
        """Closed candles and revisions that went out after that number, in the order in which
        they did, with the values that they have now; ``received_ms`` is not kept and is 0.

        None where that is not known exactly: more than ``limit``, an epoch that is not this
        store's, or one whose process was killed and may have given that number after its last
        write.  Of such an epoch ``closed_ms``, the open time of the last closed candle that went
        out up to that number, decides, if it is stored.
        """

    async def run(self) -> None:
        """Write batches until cancelled."""

    def pending(self) -> int:
        """Rows not yet on disk."""
