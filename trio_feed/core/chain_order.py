"""The transactions of one program that are not settled yet, in the order of the chain.

A position is a number: slot, place inside the slot, place inside the transaction.  A notification
does not say its place inside the slot, and neither does a row of the list; what is known is the
order in which they come.  So places leave room between each other for what is found later, and
where nothing has been taken of a slot yet, the list's order (reversed) decides.  That the list's
order inside one slot is the chain's is documented nowhere.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence

from attrs import define, field

from ..instants import Mono
from ..transactions import Transaction

_PLACE_BITS = 20
_PRICE_BITS = 8
_ROOM = 1 << 8
"""Between two neighbours in one slot."""
_LAST = (1 << _PLACE_BITS) - 1


def slot_of(position: int) -> int:
    """The slot of a price's position."""
    return position >> (_PLACE_BITS + _PRICE_BITS)


@define(eq=False)
class Record:
    """``transaction`` None: the list names it and it has to be fetched.

    ``versions`` are what notifications said of it, by slot: on another fork it may have had
    another outcome.  ``taken`` are the keys of its prices that were given out; ``done``: given
    out, though it may have had none.  ``listed``: a round has named it; ``absences`` counts the
    rounds that should have and did not, which matters until one has.
    """

    signature: str
    slot: int
    place: int = 0
    transaction: Transaction | None = None
    versions: dict[int, Transaction] = field(factory=dict)
    taken: tuple[str, ...] = ()
    done: bool = False
    listed: bool = False
    absences: int = 0
    wanted_since: Mono | None = None
    tries: int = 0
    asked: bool = False
    cut_at: set[int] = field(factory=set)
    """Endpoints whose logs of it are cut."""

    @property
    def key(self) -> tuple[int, int]:
        return self.slot, self.place

    def position(self, number: int) -> int:
        """Of its price ``number``."""
        last = (1 << _PRICE_BITS) - 1
        place = self.slot << _PLACE_BITS | self.place
        return place << _PRICE_BITS | min(number, last)


@define(eq=False)
class ChainOrder:
    """Records by signature and in order."""

    by_signature: dict[str, Record] = field(factory=dict)
    _order: list[Record] = field(factory=list)
    _left: dict[int, int] = field(factory=dict)
    """Of the slot that left last: its last place."""

    def __len__(self) -> int:
        return len(self._order)

    @property
    def records(self) -> Sequence[Record]:
        return self._order

    def append(self, record: Record) -> None:
        """Behind everything of its slot."""
        after = bisect_left(self._order, (record.slot + 1, 0), key=_key)
        before = self._order[after - 1] if after else None
        last = self._left.get(record.slot, 0)
        if before is not None and before.slot == record.slot:
            last = before.place
        record.place = min(last + _ROOM, (last + _LAST + 1) // 2)
        self._put(record)

    def arrange(self, slot: int, signatures: Sequence[str]) -> None:
        """``signatures`` of one slot, in the chain's order as the list has it; all have records,
        those that are new are put in here."""
        known = self._of_slot(slot)
        if not any(record.done for record in known):
            for record in known:
                self.remove(record)
            listed = set(signatures)
            rest = [record for record in known if record.signature not in listed]
            by_signature = {record.signature: record for record in known}
            for signature in signatures:
                self.append(by_signature.get(signature) or Record(signature, slot))
            for record in rest:
                self.append(record)
            return
        fixed = {record.signature for record in known if record.done}
        previous: Record | None = None
        for at, signature in enumerate(signatures):
            record = self.by_signature.get(signature) or Record(signature, slot)
            if not record.done:
                if signature in self.by_signature:
                    self.remove(record)
                if previous is None and fixed.isdisjoint(signatures[at:]):
                    self.append(record)
                else:
                    self._insert_after(previous, record)
            previous = record

    def remove(self, record: Record) -> None:
        """Raises KeyError for one that is not in."""
        del self.by_signature[record.signature]
        at = bisect_left(self._order, record.key, key=_key)
        while self._order[at] is not record:
            at += 1
        del self._order[at]

    def drop_first(self, count: int) -> list[Record]:
        """The first ``count``, taken out."""
        dropped, self._order = self._order[:count], self._order[count:]
        for record in dropped:
            del self.by_signature[record.signature]
        if dropped:
            self._left = {dropped[-1].slot: dropped[-1].place}
        return dropped

    def _insert_after(self, previous: Record | None, record: Record) -> None:
        low = previous.place if previous is not None else 0
        at = bisect_left(self._order, (record.slot, low + 1), key=_key)
        following = self._order[at] if at < len(self._order) else None
        if following is None or following.slot != record.slot:
            record.place = min(low + _ROOM, (low + _LAST + 1) // 2)
        else:
            record.place = (low + following.place) // 2
        self._put(record)

    def _of_slot(self, slot: int) -> list[Record]:
        first = bisect_left(self._order, (slot, 0), key=_key)
        return self._order[first : bisect_left(self._order, (slot + 1, 0), key=_key)]

    def _put(self, record: Record) -> None:
        self.by_signature[record.signature] = record
        insort(self._order, record, key=_key)


def _key(record: Record) -> tuple[int, int]:
    return record.key
