"""What the owners of this node have to say goes into the logs: one round trip for all of them."""

from collections.abc import Callable
from typing import Never

import structlog
import trio
from attrs import define, field

from ...store.pending import Complaint
from .base import EMPTY, Engine, EngineFault, EntryId
from .counts import FeedingCounts
from .owner import Owner, Told
from .writing import Writing

log = structlog.get_logger()

_CHECKPOINT_S = 5.0
_BEAT_S = 1.0
_TRIM_S = 10.0
LEASE_GONE = "our lease had not run out: the engine forgot it, or somebody deleted it there"
LEASE_OVER = "our lease ran out: this node, or the engine, stood still for longer"


@define(eq=False)
class Appending:
    """``may(shard, now)``: whether nobody else can own it.  ``fenced(shard)``: somebody does.
    ``reached()``: the engine has answered.  At most one round trip in ``tick_s``."""

    _writing: Writing
    _may: Callable[[str, float], bool]
    _fenced: Callable[[str], None]
    _reached: Callable[[], object]
    counts: FeedingCounts
    tick_s: float
    retain_s: float
    retain_bytes: int
    _news: trio.Event = field(factory=trio.Event)
    _not_trimmed: Complaint = field(factory=Complaint)
    _marks: dict[str, list[tuple[float, EntryId]]] = field(factory=dict)
    """By shard: entries with a checkpoint, and when they were appended."""

    def __attrs_post_init__(self) -> None:
        self._writing.wake = self.wake

    def wake(self) -> None:
        """Something is to be appended."""
        self._news.set()

    async def run(self, engine: Engine) -> Never:
        """Raises EngineFault."""
        self.wake()  # what waited while the engine was away
        while True:
            await self._news.wait()
            self._news = trio.Event()
            if await self._append(engine):
                self.wake()
            await trio.sleep(self.tick_s)

    async def _append(self, engine: Engine) -> bool:
        """One round trip.  False: nothing was to be appended."""
        began = trio.current_time()
        owners = [o for shard, o in self._writing.owners.items() if self._may(shard, began)]
        tried = [(owner, each) for owner in owners for each in owner.next_appends()]
        if not tried:
            return False
        answers = await engine.append([each for _, each in tried])
        now = trio.current_time()
        self.counts.append.note(now - began)
        self.counts.append_bytes += sum(len(each.body) for _, each in tried)
        for (owner, each), last in zip(tried, answers, strict=True):
            if owner.is_tried(each):
                is_mark = each.checkpoint and last == each.entry_id
                self._note_answer(owner, is_mark, last, now)
        self._reached()
        return True

    def _note_answer(
        self, owner: Owner, checkpoint: bool, last: EntryId | None, now: float
    ) -> None:
        match owner.answered(last, now):
            case Told.DONE:
                self.counts.appends += 1
                if checkpoint and last is not None:
                    self._marks.setdefault(owner.shard, []).append((now, last))
            case Told.AGAIN:
                does = f"appends {owner.again} entries again"
                self._note_forgot(owner, last, _gone(last, owner.again), does)
            case Told.FENCED:
                self.counts.changes["fenced"] += 1
                why = LEASE_GONE if self._may(owner.shard, now) else LEASE_OVER
                log.warning("shard.fenced", shard=owner.shard, by="the engine", last=last, why=why)
                owner.seal()
                self._fenced(owner.shard)
            case Told.FORGOTTEN:
                self._note_forgot(owner, last, _gone(last), "begins a new epoch")
                owner.forgotten = True

    def _note_forgot(self, owner: Owner, last: EntryId | None, gone: str, does: str) -> None:
        self.counts.forgot += 1
        log.warning("engine.forgot", shard=owner.shard, last=last, gone=gone, does=does)

    async def keep_checkpoints(self, engine: Engine) -> Never:
        """And signs of life, and let go what nobody needs any more."""
        beat, not_trimmed_since = 0, -1
        while True:
            for place, (shard, owner) in enumerate(list(self._writing.owners.items())):
                # One shard after the other: to write how hundreds of streams stand takes a while.
                if (beat + place) % round(_CHECKPOINT_S / _BEAT_S) == 0:
                    owner.ask_checkpoint()
                else:
                    owner.beat()
                if beat % round(_TRIM_S / _BEAT_S) == 0:
                    fault = await self._try_to_trim(engine, shard)
                    if fault and not_trimmed_since < 0:
                        not_trimmed_since = beat  # an engine that is away says so elsewhere
                    elif fault and not_trimmed_since < beat:
                        self._note_not_trimmed(fault)
            self.wake()
            beat += 1
            await trio.sleep(_BEAT_S)

    async def _try_to_trim(self, engine: Engine, shard: str) -> str:
        """Why it could not be; empty: it could.  It keeps nobody from saying more."""
        try:
            await self._trim(engine, shard)
        except EngineFault as fault:
            return str(fault)
        return ""

    def _note_not_trimmed(self, problem: str) -> None:
        if self._not_trimmed.is_news(problem, trio.current_time()):
            log.warning("engine.not_trimmed", problem=problem)

    async def _trim(self, engine: Engine, shard: str) -> None:
        """Before a checkpoint that is old enough nobody needs anything: it names what the database
        lacks."""
        marks, before = self._marks.get(shard, []), trio.current_time() - self.retain_s
        old = [mark for mark in marks if mark[0] <= before]
        if old:  # those before the last of them are of no use, also where it cannot be let go
            marks = self._marks[shard] = marks[len(old) - 1 :]
        if not old and (await engine.bytes_of([shard]))[shard] > self.retain_bytes:
            old = marks[-1:]
        if old:
            await engine.trim(shard, old[-1][1])
            self._marks[shard] = [mark for mark in self._marks[shard] if mark >= old[-1]]


def _gone(last: EntryId | None, again: int = 0) -> str:
    """What of a log is not there any more, for people.  ``again``: so many entries of it are kept
    here; 0: not enough."""
    if last is None:
        return "entries at the end of its log; somebody deleted them there"
    if last == EMPTY:
        return "its whole log"
    return f"the last {again} entries of its log" if again else "more of its log than is kept here"
