"""A program's transactions, none missed, in the order of the chain: pure.

A subscription to a program's logs loses what happens while the connection is down, and now and then
a notification for no reason; nothing in it shows that.  The evidence is the list of the program's
transactions (getSignaturesForAddress): it is read back to what is settled after each reconnect and
every ``check_s``, at every endpoint (:mod:`.chain_round`); what it names and nobody told is fetched
(getTransaction); and it proves a quiet program quiet.

Where something is known to be missing, live transactions wait for it, within bounds; what comes
after the bounds is ``late``, what never comes is a final :class:`~.chain_items.Gap`.  A transaction
that was published while ``processed`` and that the settled list does not have, or has in another
slot, is retracted, and its new version taken.

The driver's part::

    repair.live(transaction, now)   each notification (``venue.read``)
    repair.reconnected(now)         each time the subscription is confirmed
    while True:
        wait until repair.due(now), or until one of these methods was called
        repair.advance(now)         what time alone decides
        repair.ask(now)             questions, each of which must be answered or failed
        repair.answer(question, parsed, now) / repair.failed(question, now)

All but ``due`` and ``ask`` return an ``Out``: items to apply in order.  No method waits or raises.
"""

from collections.abc import Iterator, Mapping
from itertools import count

from attrs import evolve

from ..instants import NEVER, Mono, Now
from ..transactions import Answer, Question, SignaturePage, SignatureRow, Transaction
from .chain_fetches import ChainFetches
from .chain_items import ChainLimits, Dated, Gap, Item, Out, Proven, Retract
from .chain_known import ChainKnown
from .chain_order import Record
from .chain_queue import ChainQueue
from .chain_round import TRIES, Round, Walk
from .effects import Report

_SOON_S = 0.5
_SLOTS_DIFFER = "they name different slots for the same transaction; the one with more rows counts"
_SAY_AGAIN_S = 60.0
_SLOT_S = 0.4
"""The longest that a slot takes."""


class ChainRepair:
    """One program's state.  ``last``: signature and slot of the last transaction that an earlier
    run had settled (:attr:`settled`); None: begin with what comes now.

    ``retracts``: the subscription is ``processed``, so that what it tells may vanish.
    ``failed_too``: transactions that were rolled back have prices as well.
    """

    def __init__(
        self,
        endpoints: int = 1,
        limits: ChainLimits | None = None,
        *,
        last: tuple[str, int] | None = None,
        retracts: bool = False,
        failed_too: bool = False,
    ) -> None:
        self._endpoints, self._retracts, self._failed_too = endpoints, retracts, failed_too
        self._limits = limits or ChainLimits()
        self._known = ChainKnown(self._limits, last)
        self._order = self._known.order
        # What came before live prices while nothing ran is mostly more than after a reconnect.
        self._queue = ChainQueue(self._limits, self._limits.give_up_s if last else 0.0)
        self._fetches = ChainFetches(self._order, self._queue, endpoints, self._limits)
        self._round: Round | None = None
        self._next_round: Mono = NEVER
        self._ended: Mono | None = None
        """When the last round ended."""
        self._silent: dict[int, Mono] = {}
        """Endpoints that the last round went on without, and since when."""
        self._say_from = Mono(0.0)
        self._gap_slot = 0
        """The first slot told after the gap."""
        self._numbers = count(1)
        self._pending: dict[int, Walk | Record] = {}
        self._proof: Proven | None = None

    @property
    def settled(self) -> tuple[str, int] | None:
        """Signature and slot of the last transaction before which nothing is missing."""
        return self._known.checkpoints[-1] if self._known.checkpoints else None

    @property
    def held(self) -> int:
        """Transactions that wait for others before them, those that are being fetched included."""
        return len(self._queue)

    @property
    def begun_slot(self) -> int | None:
        """Everything in later slots is taken or said to be missing; None: not known yet."""
        return self._known.floor if self._known.begun else None

    @property
    def missing_slot(self) -> int | None:
        """The first in which something is known to be missing; None: there is none."""
        first = self._queue.missing_slot
        return min([*self._fetches.cut.values(), *([] if first is None else [first])], default=None)

    def hurry(self, now: Now) -> None:
        """Times of blocks are wanted: read the list soon."""
        ended = self._ended if self._ended is not None else now.mono
        self._next_round = min(self._next_round, max(now.mono, ended) + self._limits.times_s)

    def live(self, transaction: Transaction, now: Now) -> Out:
        """A notification."""
        if transaction.signature in self._known.settled:
            return ()
        if self._known.is_absurd(transaction.slot, now.mono):
            fields = {"signature": transaction.signature, "slot": transaction.slot}
            return (Report("chain.absurd_slot", "warning", fields),)
        if self._queue.gap_since is not None and not self._gap_slot:
            self._gap_slot = transaction.slot
        record = self._order.by_signature.get(transaction.signature)
        if record is None:
            record = Record(transaction.signature, transaction.slot)
            self._order.append(record)
        record.versions[transaction.slot] = transaction
        if record.transaction is not None or record.slot != transaction.slot:
            return ()
        come = self._fetches.come(record, transaction, now)
        return (*come, *self._forget(), *self._flush(now))

    def reconnected(self, now: Now) -> Out:
        """The subscription is confirmed (again): what happened before is not known, unless this is
        the very first time."""
        if self._known.begun or len(self._order):
            self._queue.gap_since, self._gap_slot = now.mono, 0
        self._next_round = now.mono
        return tuple(self._flush(now))

    def due(self, now: Now) -> Mono:
        """When :meth:`advance` or :meth:`ask` has something to do; NEVER: only after a call."""
        moments = [self._next_round if self._round is None else self._round.due]
        return min(*moments, self._queue.due, self._fetches.due)

    def advance(self, now: Now) -> Out:
        """What time alone decides: what waited too long goes without what it waited for."""
        return tuple(self._flush(now))

    def ask(self, now: Now) -> list[Question]:
        """What is to be asked now; it is taken as asked."""
        if self._round is None and self._next_round <= now.mono:
            self._begin_round(now)
        questions: list[Question] = []
        if self._round is not None:
            for walk in self._round.ready(now.mono):
                number = next(self._numbers)
                self._pending[number] = walk
                questions.append(self._round.ask(walk, number))
        for record in self._fetches.ready(now):
            number = next(self._numbers)
            self._pending[number] = record
            questions.append(self._fetches.ask(record, number))
        return questions

    def answer(self, question: Question, parsed: Answer, now: Now) -> Out:
        """What ``question`` brought.  An answer to nothing that is asked is nothing."""
        asked = self._pending.pop(question.number, None)
        if isinstance(asked, Record):
            found = parsed if isinstance(parsed, Transaction) else None
            come = self._fetches.answered(asked, found, question.endpoint, now)
            return (*come, *self._flush(now))
        if asked is None or self._round is None or asked not in self._round.walks:
            return ()
        if isinstance(parsed, SignaturePage):
            self._round.page(asked, parsed, now.mono)
        elif isinstance(parsed, int):
            self._round.reached(asked, parsed)
        else:
            asked.failed(now.mono)
        return tuple(self._end_round(now))

    def failed(self, question: Question, now: Now, wait_s: float = 0.0) -> Out:
        """It brought nothing.  ``wait_s``: the endpoint wants to be left alone for so long."""
        asked = self._pending.pop(question.number, None)
        if isinstance(asked, Record):
            return (*self._fetches.failed(asked, now, wait_s), *self._flush(now))
        if asked is not None and self._round is not None and asked in self._round.walks:
            asked.failed(now.mono, wait_s)
            return tuple(self._end_round(now))
        return ()

    # Rounds

    def _begin_round(self, now: Now) -> None:
        walks = tuple(
            Walk(n, ask_at=now.mono, tries=TRIES - 1 if n in self._silent else 0)
            for n in range(self._endpoints)
        )
        known = self._known
        self._round = Round(now.mono, known.for_round(), not known.begun, walks, self._limits)

    def _end_round(self, now: Now) -> Iterator[Item]:
        if self._round is None or not self._round.over:
            return
        ended, self._round = self._round, None
        self._ended = now.mono
        self._next_round = now.mono + self._limits.check_s
        self._known.reached = ended.slot, ended.started
        silent = [walk.endpoint for walk in ended.walks if not walk.done]
        self._silent = {n: self._silent.get(n, now.mono) for n in silent}
        if ended.baseline:
            self._known.begin(ended)
        yield from self._faults_of(ended)
        for walk in ended.walks:
            if walk.done:
                yield Dated((*walk.rows, *walk.older), walk.endpoint)
        yield from self._compare(ended, now)
        self._proof = Proven(ended.slot - self._limits.settle_slots, reached=ended.slot)
        queue = self._queue
        if queue.gap_since is not None:
            if ended.started < queue.gap_since:
                self._next_round = now.mono
            elif self._reaches(ended):
                queue.gap_since = None
            else:  # it does not reach over the gap yet
                self._next_round = now.mono + _SOON_S
        yield from self._flush(now)

    def _reaches(self, ended: Round) -> bool:
        """Over the whole gap?  Nodes are not equally far: the list must have reached what the
        subscription told first; as long as that is nothing, it must be read a little later."""
        queue, told = self._queue, self._gap_slot
        if queue.gap_since is None or (queue.released and ended.slot < told):
            return True
        later_s = 0.0 if told else self._limits.settle_slots * _SLOT_S
        return ended.slot >= told and ended.started >= queue.gap_since + later_s

    def _faults_of(self, ended: Round) -> Iterator[Item]:
        walks = [walk for walk in ended.walks if walk.done]
        first = max(ended.known.floor_slot, 0)
        if all(walk.cut for walk in walks):
            last = min((walk.rows[-1].slot for walk in walks if walk.rows), default=ended.slot)
            # What is known is known to nobody else, and the next reading would not meet it either.
            read = any(walk.rows for walk in walks)
            self._known.begin_anew(last - 1 if read else ended.slot - self._limits.settle_slots)
            yield Gap(first, last, walks[0].cut, final=True)
        if odd := sum(walk.odd for walk in walks):
            yield Report("chain.odd_rows", "warning", {"rows": odd})
            if len(walks) == 1:
                yield Gap(first, ended.slot, "rows of the list that cannot be read", final=True)
        for walk in ended.walks:
            if not walk.done:
                yield Report("chain.endpoint_silent", "warning", {"endpoint": walk.endpoint})

    def _compare(self, ended: Round, now: Now) -> Iterator[Item]:
        """The united list against what is known."""
        united = ended.united()
        if ended.contradicted and now.mono >= self._say_from:
            self._say_from = now.mono + _SAY_AGAIN_S
            fields = {"transactions": ended.contradicted, "problem": _SLOTS_DIFFER}
            yield Report("chain.endpoints_disagree", "warning", fields)
        missed: list[Record] = []
        for slot, rows in united.items():
            new = [row for row in rows if row.signature not in self._known.settled]
            if slot <= self._known.floor:  # before we began, or given up: only what was published
                new = [row for row in new if row.signature in self._order.by_signature]
            for row in new:
                record = self._order.by_signature.get(row.signature)
                if record is not None and record.slot != slot:
                    yield from self._move(record, slot)
            self._order.arrange(slot, [row.signature for row in new])
            for row in new:
                record = self._order.by_signature[row.signature]
                record.listed = True
                if record.transaction is None and record.wanted_since is None:
                    record.wanted_since = now.mono
                    missed.append(record)
        self._queue.sort()
        yield from self._take_in(missed, united, now)
        named = {row.signature for rows in united.values() for row in rows}
        self._known.older_checkpoints(ended)
        # What only a silent endpoint knows is still to be found once it is back.
        heard = all(now.mono - at >= self._limits.give_up_s for at in self._silent.values())
        if heard and not ended.baseline:  # which is one page, and may begin inside of a slot
            whole = ended.slot - self._limits.settle_slots
            yield from self._absent(whole, named)
            self._known.settle_line(whole, self._fetches.cut)

    def _take_in(
        self, missed: list[Record], united: Mapping[int, list[SignatureRow]], now: Now
    ) -> Iterator[Item]:
        """Records that the list named first, and those that have moved."""
        failed = {r.signature for rows in united.values() for r in rows if r.failed}
        lost = 0
        for record in missed:
            if (version := record.versions.get(record.slot)) is not None:
                yield from self._fetches.come(record, version, now)
            elif record.signature in failed and not self._failed_too:
                record.transaction = Transaction(record.signature, record.slot, failed=True)
                record.done = True
            else:
                lost += 1
                self._queue.want(record)
                self._fetches.want(record, now)
        if lost:
            yield Report("chain.missed", "info", {"transactions": lost})

    def _move(self, record: Record, slot: int) -> Iterator[Item]:
        """It settled in another slot than the subscription said."""
        yield from self._retract(record)
        self._order.append(Record(record.signature, slot, versions=record.versions))

    def _absent(self, whole: int, named: set[str]) -> Iterator[Item]:
        """What the subscription said of slots up to ``whole`` and is in no list."""
        for record in [*self._order.records]:
            if record.slot > whole:
                break
            if record.signature in named or record.slot <= self._known.floor:
                continue
            record.absences += 1
            if record.absences == 2 and not record.listed:
                yield Report("chain.unlisted", "warning", {"signature": record.signature})
                if self._retracts:
                    yield from self._retract(record)

    def _retract(self, record: Record) -> Iterator[Item]:
        self._order.remove(record)
        self._queue.drop(record)
        self._fetches.cut.pop(record.signature, None)
        if record.taken:
            yield Report("chain.retracted", "info", {"signature": record.signature})
            yield Retract(record.taken)

    def _forget(self) -> Iterator[Item]:
        if (forgotten := self._known.forget()) is not None:
            signatures, gap = forgotten
            for signature in signatures:
                self._fetches.cut.pop(signature, None)
            yield gap

    def _flush(self, now: Now) -> Iterator[Item]:
        yield from self._queue.flush(now)
        if self._proof is None or self._queue.gap_since is not None:
            return
        proof, first = self._proof, self._queue.first_slot
        slot = proof.slot
        if (first is None or first > slot) and all(at > slot for at in self._fetches.cut.values()):
            self._proof = None
            yield evolve(proof, settled=self.settled)
