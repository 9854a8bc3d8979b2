"""Prices of a chain wait until the time of their block is known.  Pure.

:mod:`.chain` gives prices in the order of the chain; to which candle one belongs only the block's
time says (:mod:`.chain_times`), and no clock does.  So a price is published at once
(:class:`~.chain_items.Heard`, with a time that is estimated from the slots around it), and it is
taken when a node has named its time, in order, and not before what is still being fetched.

After ``hold_s`` it goes on at the estimate: every candle that it may belong to is not complete
(:class:`~.chain_items.Unsure`), and once the time is known, it is taken again where it belongs.
As long as no time of the chain is known at all it waits, and after ``held`` others it is given up,
which is said.
"""

from bisect import insort
from collections import OrderedDict
from collections.abc import Iterator

from attrs import define, evolve, field

from ..instants import NEVER, Mono, Now
from ..transactions import AskBlockTime, SignatureRow, Transaction
from .chain_compared import ComparedTimes
from .chain_items import (
    SECOND_MS,
    ChainLimits,
    Dated,
    Gap,
    Heard,
    Item,
    Out,
    Proven,
    Retract,
    Take,
    Unsure,
)
from .chain_order import slot_of
from .effects import Report

_ASK_AFTER_S = 5.0
"""A time that no list has named by then is asked for."""
_LOOK_S = 2.5
"""While something waits :meth:`ChainPlacing.flush` is called so often."""
_FRESH_SLOTS = 8
_SAY_AGAIN_S = 60.0
_TIMES_DIFFER = "they name different times for the same block; what depends on it is not complete"
_MARGIN_MS = 5_000
_MARGIN_SHARE = 10
"""An estimate is wrong by a tenth of what it goes beyond the last known time, at most."""


@define(eq=False)
class _Waiting:
    take: Take
    since: Mono
    slot: int
    heard: bool = False

    @property
    def position(self) -> int:
        return self.take.price.position


@define(eq=False)
class ChainPlacing:
    """``listed_only``: what the subscription tells may vanish, so that a price is taken only when
    the list has named its transaction."""

    limits: ChainLimits
    endpoints: int = 1
    listed_only: bool = False
    times: ComparedTimes = field(init=False)
    _waiting: list[_Waiting] = field(factory=list)
    """By position."""
    _listed: OrderedDict[str, None] = field(factory=OrderedDict)
    _fetched_from: OrderedDict[str, int] = field(factory=OrderedDict)
    """Signature -> the node that gave the transaction."""
    _estimated: dict[str, tuple[_Waiting, int]] = field(factory=dict)
    """Key of a price -> it, and the time at which it was taken."""
    _newest: int = -1
    """Position of the newest that was taken."""
    _seen: tuple[int, Mono] = (0, Mono(0.0))
    """The newest slot that was heard of, and when."""
    _proof: Proven | None = None
    _quiet_slot: int = 0
    """A time near it is wanted, because nothing happens."""
    _looked: Mono = Mono(0.0)
    _asked_at: Mono = Mono(float("-inf"))
    _asked: int = 0
    _slow: bool = False
    _disputed_from: Mono = Mono(float("-inf"))

    def __attrs_post_init__(self) -> None:
        self.times = ComparedTimes(self.endpoints)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def waits(self) -> bool:
        """A reading of the list would help."""
        return bool(self._waiting or self._estimated)

    def due(self) -> Mono:
        """When :meth:`flush` or :meth:`ask` has something to do."""
        moments = [NEVER]
        if self._waiting:
            moments.append(self._looked + _LOOK_S)
            since = self._waiting[0].since
            moments += [since + self.limits.hold_s] if len(self.times) else []
            moments.append(max(since, self._asked_at) + _ASK_AFTER_S)
        if self._quiet_slot:
            moments.append(self._asked_at + _ASK_AFTER_S)
        return min(moments)

    def put(self, item: Item, now: Now) -> Iterator[Item]:
        """What :class:`.chain.ChainRepair` gave out; :meth:`flush` gives what can go on."""
        match item:
            case Take(price):
                slot = slot_of(price.position)
                self._see(slot, now.mono)
                endpoint = self._fetched_from.get(item.signature, 0)
                self.times.note(slot, price.time_ms, endpoint)
                entry = _Waiting(item, now.mono, slot)
                insort(self._waiting, entry, key=lambda each: each.position)
            case Retract(keys):
                gone = set(keys)
                self._waiting = [w for w in self._waiting if w.take.price.key not in gone]
                for key in gone:
                    self._estimated.pop(key, None)
                yield item
            case Dated(rows, endpoint):
                self._dated(rows, endpoint)
            case Proven():
                self._proof = item
                self._see(item.reached, now.mono)
                if self.times.newest_slot(item.reached) < item.reached - _FRESH_SLOTS:
                    self._quiet_slot = item.reached
            case _:
                yield item

    def fetched(self, transaction: Transaction, endpoint: int) -> None:
        """A node says when it was; that counts when its prices come in their turn."""
        self._fetched_from[transaction.signature] = endpoint
        if len(self._fetched_from) > self.limits.remembered:
            self._fetched_from.popitem(last=False)

    def answered(self, question: AskBlockTime, time_ms: int | None) -> None:
        """None: the node does not have it (the slot was skipped, or it is too new)."""
        if time_ms:
            self.times.note(question.slot, time_ms, question.endpoint)

    def ask(self, now: Now, number: int) -> list[AskBlockTime]:
        """Times that the lists do not tell."""
        if now.mono - self._asked_at < _ASK_AFTER_S:
            return []
        slot, self._quiet_slot = self._quiet_slot, 0
        if not slot and self._waiting and now.mono - self._waiting[0].since >= _ASK_AFTER_S:
            slot = self._waiting[0].slot
            slot = 0 if self.times.of(slot) else slot
        if not slot:
            return []
        self._asked_at = now.mono
        self._asked += 1
        return [AskBlockTime(number, self._asked % self.endpoints, slot)]

    def flush(self, now: Now, before: int | None) -> Out:
        """What can go on.  ``before``: something in this slot is being fetched, so that what lies
        behind it waits."""
        return tuple(self._flush(now, before))

    def span_of(self, gap: Gap, since_ms: int | None, now: Now) -> tuple[int, int]:
        """The time of its slots, as far as blocks before, in and behind it show it.  ``since_ms``:
        older prices are not missing."""
        if gap.time_ms:
            return gap.time_ms, gap.time_ms + SECOND_MS
        first_ms = self.times.at_least(gap.first_slot)
        if not first_ms:  # nothing so old is known
            first_ms = int(now.exchange) if since_ms is None else since_ms
        until_ms = self.times.at_most(gap.last_slot) if gap.last_slot else 0
        return first_ms, max(until_ms or self._about_now(now), first_ms) + SECOND_MS

    def _about_now(self, now: Now) -> int:
        """The chain's time, not too early; by our clock only where nothing else is known."""
        slot, seen = self._seen
        about = self.times.estimate(slot) if slot else 0
        if not about:
            return int(now.exchange)
        return about + int((now.mono - seen) * 1000) + _MARGIN_MS

    def _see(self, slot: int, now: Mono) -> None:
        if slot > self._seen[0]:
            self._seen = slot, now

    def _flush(self, now: Now, before: int | None) -> Iterator[Item]:
        self._pardon(now.mono)
        yield from self._placed_again()
        given = 0
        for entry in self._waiting:
            known = self._time_of(entry)
            patient = now.mono - entry.since < self.limits.hold_s
            patient = patient and len(self._waiting) - given <= self.limits.held
            if patient and (not known or (before is not None and entry.slot >= before)):
                break
            if not known and not len(self.times):
                if len(self._waiting) - given <= self.limits.held:
                    break
                given += 1
                reason = "no node says what time it is"
                yield Gap(entry.slot, entry.slot, reason, final=True)
                continue
            given += 1
            if not known:
                yield from self._unsure(entry)
            yield self._given(entry, known)
        del self._waiting[:given]
        for entry in self._waiting:
            if not entry.heard and (about := self.times.estimate(entry.slot)):
                entry.heard = True
                price = evolve(entry.take.price, time_ms=about)
                yield Heard(price, entry.take.signature)
        if self._slow and not self._estimated:
            self._slow = False
        if self.times.disputed and now.mono >= self._disputed_from:
            self._disputed_from = now.mono + _SAY_AGAIN_S
            fields = {"slot": self.times.disputed, "problem": _TIMES_DIFFER}
            yield Report("chain.endpoints_disagree", "warning", fields)
        self.times.disputed = 0
        yield from self._proven()

    def _pardon(self, now: Mono) -> None:
        """What nobody could have said, or heard, is no reason to go on without it: the time before
        anything is known of the chain's, and that in which this process stood still."""
        lost_s = now - self._looked
        self._looked = now
        if lost_s > 2 * _LOOK_S or not len(self.times):
            for entry in self._waiting:
                entry.since = min(now, entry.since + lost_s)

    def _given(self, entry: _Waiting, known: int) -> Take:
        price = entry.take.price
        time_ms = known or self.times.estimate(entry.slot)
        late = entry.position < self._newest
        self._newest = max(self._newest, entry.position)
        return Take(evolve(price, time_ms=time_ms), late, entry.take.signature)

    def _unsure(self, entry: _Waiting) -> Iterator[Item]:
        """It is taken at an estimate."""
        about = self.times.estimate(entry.slot)
        if not self._slow:
            self._slow = True
            fields = {"waiting": len(self._waiting), "slot": entry.slot}
            yield Report("chain.times_unknown", "warning", fields)
        first_ms = self.times.at_least(entry.slot) or about
        wrong_ms = _MARGIN_MS + abs(about - first_ms) // _MARGIN_SHARE
        wrong_ms += self.times.spread_ms(entry.slot)
        self._estimated[entry.take.price.key] = entry, about
        yield Unsure(min(first_ms, about), about + wrong_ms)

    def _placed_again(self) -> Iterator[Item]:
        """Those that were taken at an estimate and whose time is known by now."""
        for key, (entry, about) in [*self._estimated.items()]:
            known = self._time_of(entry)
            if known:
                del self._estimated[key]
            if known and known != about:
                yield Retract((key,))
                yield self._given(entry, known)

    def _time_of(self, entry: _Waiting) -> int:
        fetched_ms = entry.take.price.time_ms
        if fetched_ms:
            return fetched_ms if self.times.allows(entry.slot, fetched_ms) else 0
        if self.listed_only and entry.take.signature not in self._listed:
            return 0
        return self.times.of(entry.slot)

    def _dated(self, rows: tuple[SignatureRow, ...], endpoint: int) -> None:
        for row in rows:
            self.times.note(row.slot, row.time_ms, endpoint)
            self._listed[row.signature] = None
        while len(self._listed) > self.limits.remembered:
            self._listed.popitem(last=False)

    def _proven(self) -> Iterator[Item]:
        proof = self._proof
        if proof is None:
            return
        open_ = [w.slot for w in self._waiting[:1]]
        open_ += [entry.slot for entry, _ in self._estimated.values()]
        until_ms = self.times.at_least(proof.slot)
        if until_ms and all(slot > proof.slot for slot in open_):
            self._proof = None
            yield evolve(proof, until_ms=until_ms)
