"""One reading of a program's list of transactions, at every endpoint, back to what is known.

At each endpoint: the slot it has reached, then the list from its newest row, page by page, from a
node that has reached that slot, until a row that was settled before (a checkpoint) is met.  Meeting
it is the evidence that nothing between is left out: an endpoint that does not know the ``before``
of a page answers with an empty list, not with an error.

The endpoints' lists are united: a transaction that only one of them knows counts.
"""

from collections.abc import Mapping, Sequence

from attrs import define, field, frozen

from ..instants import NEVER, Mono
from ..transactions import AskSignatures, AskSlot, SignaturePage, SignatureRow
from .chain_items import ChainLimits

TRIES = 3
"""So often an endpoint may fail before the others go on without it."""
_OLDER = 8
_AHEAD_SLOTS = 1000
"""A row that is further ahead of the node's slot is wrong."""
_BACKOFF_S = 0.5
_LONGEST_S = 30.0


@frozen
class Known:
    """What a walk may end at: ``checkpoints`` (signature -> slot), newest first, and
    ``floor_slot``: nothing at or below it is wanted."""

    checkpoints: Mapping[str, int]
    floor_slot: int

    @property
    def until(self) -> str | None:
        """The oldest checkpoint: those in later slots must be in the list.  Where there are none,
        nothing would prove the list, and an empty one says nothing."""
        oldest = [*self.checkpoints][-1] if self.checkpoints else ""
        above = any(slot > self.checkpoints[oldest] for slot in self.checkpoints.values())
        return oldest if above else None


@define(eq=False)
class Walk:
    """One endpoint's part.  ``rows``: newest first."""

    endpoint: int
    slot: int | None = None
    rows: list[SignatureRow] = field(factory=list)
    before: str | None = None
    pages: int = 0
    odd: int = 0
    done: bool = False
    cut: str = ""
    """Why it ended before it met what is known; empty: it met it."""
    tries: int = 0
    """In a row without an answer."""
    endings: int = 0
    """So often the list ended before it met what is known."""
    ask_at: Mono = field(default=Mono(0.0))
    asked: bool = False
    older: list[SignatureRow] = field(factory=list)
    """Rows behind the oldest checkpoint, newest first."""

    def start_again(self) -> None:
        self.rows, self.before, self.pages, self.odd = [], None, 0, 0

    def failed(self, now: Mono, wait_s: float = 0.0) -> None:
        self.asked = False
        self.ask_at = now + max(wait_s, min(_LONGEST_S, _BACKOFF_S * 2.0**self.tries))
        self.tries += 1


@define(eq=False)
class Round:
    """``started``: everything that the node had confirmed by then is in the list."""

    started: Mono
    known: Known
    baseline: bool
    """True: nothing is known yet, one page shows where the chain stands."""
    walks: tuple[Walk, ...]
    limits: ChainLimits
    contradicted: int = 0
    """Rows with another slot than an endpoint before gave that transaction."""

    def ask(self, walk: Walk, number: int) -> AskSlot | AskSignatures:
        """The walk's next question."""
        walk.asked = True
        if walk.slot is None:
            return AskSlot(number, walk.endpoint)
        page, until = self.limits.page, self.known.until
        # Of a node that does not know `before` yet the page would be empty.
        reached = max(walk.slot, walk.rows[0].slot) if walk.rows else walk.slot
        return AskSignatures(number, walk.endpoint, walk.before, until, page, reached)

    def ready(self, now: Mono) -> list[Walk]:
        return [w for w in self.walks if not w.done and not w.asked and w.ask_at <= now]

    @property
    def due(self) -> Mono:
        return min((w.ask_at for w in self.walks if not w.done and not w.asked), default=NEVER)

    @property
    def over(self) -> bool:
        """All that answer are through, one at least."""
        return any(w.done for w in self.walks) and all(
            w.done or w.tries >= TRIES for w in self.walks
        )

    @property
    def slot(self) -> int:
        """What every endpoint that answered had reached."""
        return min(w.slot or 0 for w in self.walks if w.done)

    def reached(self, walk: Walk, slot: int) -> None:
        walk.asked, walk.slot, walk.tries = False, slot, 0

    def page(self, walk: Walk, page: SignaturePage, now: Mono) -> None:
        """Take a page in: the walk goes on, ends, or begins again."""
        walk.asked, walk.tries = False, 0
        walk.pages += 1
        walk.odd += page.count - len(page.rows)
        met = self._take(walk, page.rows)
        ended = page.count < self.limits.page
        if self.baseline and not ended and walk.rows:  # the oldest slot may not be in it whole
            oldest = walk.rows[-1].slot
            walk.rows = [row for row in walk.rows if row.slot != oldest]
        if met or self.baseline or (ended and not self.known.checkpoints):
            walk.done = True
        elif not ended and page.rows and walk.pages < self.limits.pages:
            walk.before = page.rows[-1].signature
        elif not ended and page.rows:
            walk.done, walk.cut = True, f"more than {walk.pages} pages were missed"
        elif walk.endings < TRIES:
            walk.endings += 1
            walk.failed(now)
            walk.start_again()
        else:
            walk.done, walk.cut = True, "the list ends before the last known transaction"

    def _take(self, walk: Walk, rows: Sequence[SignatureRow]) -> bool:
        checkpoints = self.known.checkpoints
        oldest = [*checkpoints][-1] if checkpoints else None
        most = (walk.slot or 0) + _AHEAD_SLOTS
        for at, row in enumerate(rows):
            if row.signature == oldest or row.slot <= self.known.floor_slot:
                walk.older = [*rows[at + (row.signature == oldest) :][:_OLDER]]
                return True
            if row.slot <= most:
                walk.rows.append(row)
            else:
                walk.odd += 1
        return any(row.signature in checkpoints for row in rows)

    def united(self) -> dict[int, list[SignatureRow]]:
        """Slot -> its rows in the chain's order, slots ascending; of every endpoint.

        Where two name different slots for a transaction, the first of them counts, so that it is
        never in two places; see ``contradicted``."""
        slots: dict[int, list[SignatureRow]] = {}
        placed: dict[str, int] = {}
        self.contradicted = 0
        done = [walk for walk in self.walks if walk.done]
        for walk in sorted(done, key=lambda walk: -len(walk.rows)):  # who has most knows the order
            self._unite(slots, placed, walk)
        return dict(sorted(slots.items()))

    def _unite(
        self, slots: dict[int, list[SignatureRow]], placed: dict[str, int], walk: Walk
    ) -> None:
        at: dict[int, int] = {}
        for row in reversed(walk.rows):
            if placed.setdefault(row.signature, row.slot) != row.slot:
                self.contradicted += 1
                continue
            rows = slots.setdefault(row.slot, [])
            names = [other.signature for other in rows] if rows else []
            if row.signature in names:
                at[row.slot] = names.index(row.signature) + 1
            else:
                place = at.get(row.slot, 0)
                rows.insert(place, row)
                at[row.slot] = place + 1
