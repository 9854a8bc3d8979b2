"""What the owners of this node have to say goes into the logs: one round trip for all of them."""

from collections.abc import Callable
from typing import Never

import structlog
import trio
from attrs import define, field

from .base import Engine, EntryId
from .counts import FeedingCounts
from .owner import Owner, Told
from .writing import Writing

log = structlog.get_logger()

_CHECKPOINT_S = 5.0
_BEAT_S = 1.0
_TRIM_S = 10.0


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
        tried = [(owner, each) for owner in owners if (each := owner.next_append()) is not None]
        if not tried:
            return False
        answers = await engine.append([each for _, each in tried])
        now = trio.current_time()
        self.counts.append.note(now - began)
        self.counts.append_bytes += sum(len(each.body) for _, each in tried)
        for (owner, each), last in zip(tried, answers, strict=True):
            self._note_answer(owner, each.checkpoint, last, now)
        self._reached()
        return True

    def _note_answer(self, owner: Owner, checkpoint: bool, last: EntryId, now: float) -> None:
        match owner.answered(last, now):
            case Told.DONE:
                self.counts.appends += 1
                if checkpoint:
                    self._marks.setdefault(owner.shard, []).append((now, last))
            case Told.AGAIN:
                self.counts.forgot += 1
                log.warning("engine.forgot", shard=owner.shard, last=last)
            case Told.FENCED:
                self.counts.changes["fenced"] += 1
                log.warning("shard.fenced", shard=owner.shard, by="the engine", last=last)
                owner.seal()
                self._fenced(owner.shard)
            case Told.FORGOTTEN:
                self.counts.forgot += 1
                log.warning("engine.forgot", shard=owner.shard, last=last, more_than_kept=True)
                owner.overflown = True

    async def keep_checkpoints(self, engine: Engine) -> Never:
        """And signs of life, and let go what nobody needs any more.  Raises EngineFault."""
        beat = 0
        while True:
            for place, (shard, owner) in enumerate(list(self._writing.owners.items())):
                # One shard after the other: to write how hundreds of streams stand takes a while.
                if (beat + place) % round(_CHECKPOINT_S / _BEAT_S) == 0:
                    owner.ask_checkpoint()
                else:
                    owner.beat()
                if beat % round(_TRIM_S / _BEAT_S) == 0:
                    await self._trim(engine, shard)
            self.wake()
            beat += 1
            await trio.sleep(_BEAT_S)

    async def _trim(self, engine: Engine, shard: str) -> None:
        """Before a checkpoint that is old enough nobody needs anything: it names what the database
        lacks."""
        marks, before = self._marks.get(shard, []), trio.current_time() - self.retain_s
        old = [mark for mark in marks if mark[0] <= before]
        if not old and (await engine.bytes_of([shard]))[shard] > self.retain_bytes:
            old = marks[-1:]
        if old:
            await engine.trim(shard, old[-1][1])
            self._marks[shard] = [mark for mark in marks if mark >= old[-1]]
