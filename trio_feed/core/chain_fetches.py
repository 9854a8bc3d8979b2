"""Transactions of a chain that are fetched: which, when, of whom, and when to give up.  Pure.

Those that the list names and nobody told, and those whose logs a node cut.  Each endpoint is asked
in turn.  What comes goes to the queue (:mod:`.chain_queue`).
"""

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count

from ..instants import NEVER, Mono, Now
from ..transactions import AskTransaction, Transaction
from .chain_items import ChainLimits, Gap, Item
from .chain_order import ChainOrder, Record
from .chain_queue import ChainQueue

_FIRST_WAIT_S = 0.25
_LONGEST_WAIT_S = 10.0


class ChainFetches:
    """Of one program.  ``cut``: signature -> slot of those whose cut logs are being looked up."""

    def __init__(
        self, order: ChainOrder, queue: ChainQueue, endpoints: int, limits: ChainLimits
    ) -> None:
        self._order, self._queue = order, queue
        self._endpoints, self._limits = endpoints, limits
        self._wants: list[tuple[float, int, int, int, Record]] = []
        """When to ask, in the order of the chain."""
        self._numbers = count(1)
        self._fetching = 0
        self.cut: dict[str, int] = {}

    @property
    def due(self) -> Mono:
        """When something is to be asked; NEVER: nothing is, or too much is under way."""
        if self._wants and self._fetching < self._limits.in_flight:
            return Mono(self._wants[0][0])
        return NEVER

    def ready(self, now: Now) -> Iterator[Record]:
        """What is to be asked for now; each must be put into :meth:`ask`."""
        while self._fetching < self._limits.in_flight and self._wants:
            if self._wants[0][0] > float(now.mono):
                break
            record = heappop(self._wants)[-1]
            if self._order.by_signature.get(record.signature) is record and not record.asked:
                yield record

    def ask(self, record: Record, number: int) -> AskTransaction:
        """The question; it is taken as asked."""
        record.asked = True
        self._fetching += 1
        return AskTransaction(number, self._endpoint(record), record.signature)

    def answered(
        self, record: Record, found: Transaction | None, endpoint: int, now: Now
    ) -> Iterator[Item]:
        """The answer to :meth:`ask`.  None: the endpoint does not have it."""
        self._fetching -= 1
        record.asked = False
        if found is None:
            return self._not_yet(record, now)
        return self._fetched(record, found, endpoint, now)

    def failed(self, record: Record, now: Now, wait_s: float) -> Iterator[Item]:
        """There was no answer to :meth:`ask`."""
        self._fetching -= 1
        record.asked = False
        return self._not_yet(record, now, wait_s)

    def want(self, record: Record, now: Now, wait_s: float = 0.0) -> None:
        """Ask for it, ``wait_s`` from now."""
        at = float(now.mono) + wait_s
        heappush(self._wants, (at, *record.key, next(self._numbers), record))

    def come(self, record: Record, transaction: Transaction, now: Now) -> Iterator[Item]:
        """Its transaction is known.  Where the node cut its logs, they are asked for as well."""
        record.transaction, record.asked = transaction, False
        yield from self._queue.come(record)
        if transaction.truncated and len(record.cut_at) < self._endpoints:
            record.wanted_since = now.mono
            self.cut[record.signature] = record.slot
            self.want(record, now)

    def _endpoint(self, record: Record) -> int:
        left = [n for n in range(self._endpoints) if n not in record.cut_at]
        return left[record.tries % len(left)] if left else 0

    def _fetched(
        self, record: Record, found: Transaction, endpoint: int, now: Now
    ) -> Iterator[Item]:
        if self._order.by_signature.get(record.signature) is not record:
            return
        if found.truncated:
            record.cut_at.add(endpoint)
            if len(record.cut_at) >= self._endpoints:
                yield Gap(
                    record.slot,
                    record.slot,
                    "logs cut by every node",
                    final=True,
                    accounts=found.accounts,
                    time_ms=found.time_ms,
                )
        else:
            record.cut_at = set()
        if len(record.cut_at) in (0, self._endpoints):
            self.cut.pop(record.signature, None)
        if record.transaction is None:
            yield from self.come(record, found, now)
            return
        if len(found.prices) > len(record.transaction.prices) or not found.truncated:
            record.transaction = found
            if record.done:
                yield from self._queue.give(record)
        if found.truncated and len(record.cut_at) < self._endpoints:
            self.want(record, now)

    def _not_yet(self, record: Record, now: Now, wait_s: float = 0.0) -> Iterator[Item]:
        if self._order.by_signature.get(record.signature) is not record:
            return
        since = record.wanted_since if record.wanted_since is not None else now.mono
        if self._endpoints > 1:  # the others need not wait
            wait_s = 0.0
        if now.mono - since < self._limits.give_up_s:
            wait_s = max(wait_s, min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(record.tries, 9)))
            record.tries += 1
            self.want(record, now, wait_s)
            return
        why = "its logs are cut" if record.transaction is not None else "no endpoint has it"
        yield Gap(record.slot, record.slot, f"{record.signature}: {why}", final=True)
        record.cut_at = set(range(self._endpoints))
        self.cut.pop(record.signature, None)
        if record.transaction is None:
            nothing = Transaction(record.signature, record.slot)
            yield from self.come(record, nothing, now)
