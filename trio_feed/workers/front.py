"""The parent's side: what the feeds publish reaches all workers, and their questions are answered.

::

    Front.run                    ends with the service; then no worker is left
    ├─ flusher                   what was published in a turn of the loop, in one frame for all
    ├─ view                      once a second: how the feeds stand; workers that are silent
    └─ per worker                started again with backoff
       ├─ pipe                   bounded; a worker that takes nothing is given up
       └─ snapshot               the streams, one by one, while news goes on

An answer follows on the pipe everything that was published before it was given.
"""

import pickle
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Never

import structlog
import trio

from .. import __version__
from ..bus import wire
from ..bus.outgoing import Outgoing
from ..dialects.outside import Outside
from ..environment import Environment
from ..errors import StartError
from ..model import PrivateMessage
from ..settings import Settings
from ..store import OtherWriters
from ..supervise import Backoff
from . import frames, questions
from .answers import Answers
from .lines import HeldLines
from .link import Fleet, Link, Sources, Spawned
from .log_lines import say_again
from .pages import AllPages
from .pipe import Pipe, PipeLost
from .places import Places, Room
from .views import Views

log = structlog.get_logger()

_MAX_BYTES = 64 * 2**20
_STALL_S = 5.0
_LOOK_S = 1.0
_SILENT_LOOKS = 6
"""A worker reports once a second; who said nothing at so many looks in a row is given up.  Looks
are counted, not seconds: a parent that was paused itself has heard nobody."""
_START_S = 120.0
"""A start takes a second of CPU; on a machine that is starved it took 30 s and more, and to begin
it anew then only starves it more."""
_RESTART_MIN_S, _RESTART_MAX_S = 0.1, 30.0
_FIRST_STARTS = 5
"""Of a worker that ends and does not say why: it was killed, which the next one may not be."""
_SNAPSHOT_BYTES = 2**20


class Front:
    """All workers.  :meth:`run` it as a task; ``pages`` are the operators' over all of them,
    ``views`` what they know and want of the feeds."""

    def __init__(
        self,
        settings: Settings,
        environment: Environment,
        fleet: Fleet,
        sources: Sources,
        rooms: Mapping[str, Room],
    ) -> None:
        self._settings, self._environment, self._fleet = settings, environment, fleet
        self._sources, self._metrics = sources, sources.metrics
        self._places = Places(dict(rooms))
        self._links: dict[int, Link] = {}
        self._batch: list[wire.Item] = []
        self._news = trio.Event()
        self._left = trio.Event()
        self._draining = False
        self._failure = ""
        self._outgoing = Outgoing(self._put)
        if sources.bus is not None:
            sources.bus.listen(self._outgoing)
        self.pages = AllPages(self._links, sources)
        self.views = Views(self._links, sources)
        self._answers = Answers(sources, self._places, self.pages)

    def __repr__(self) -> str:
        return f"<Front {len(self._links)} workers, {self.clients} clients>"

    @property
    def clients(self) -> int:
        return int(self.pages.sum(0))

    # What is published

    def _put(self, item: wire.Item) -> None:
        self._batch.append(item)
        self._news.set()

    def flush(self) -> None:
        """What was published reaches every worker before anything that is put from now on."""
        if not self._batch:
            return
        items, self._batch = self._batch, []
        for_all = b""
        for link in self._links.values():
            if link.whole:
                for_all = for_all or frames.encoded(frames.Feed(items))
                link.pipe.put_encoded(for_all)
                continue
            known = [item for item in items if _concerns(link.opened, item)]
            if known:
                link.pipe.put(frames.Feed(known))

    def publish(self, messages: Sequence[PrivateMessage]) -> None:
        """Private events that have just become durable."""
        data = frames.encoded(frames.Private(list(messages)))
        for link in self._links.values():
            link.pipe.put_encoded(data)

    async def pass_on_news(self, others: OtherWriters) -> Never:
        """Of a journal that other processes write too: each worker reads what they wrote for its
        own users.  Until cancelled."""
        while True:
            users = await others.news()
            data = frames.encoded(frames.Others(None if users is None else sorted(users)))
            for link in self._links.values():
                link.pipe.put_encoded(data)

    async def _flush_turns(self) -> Never:
        while True:
            await self._news.wait()
            self._news = trio.Event()
            self.flush()

    def _outside(self, venue: str) -> Outside:
        outside = self._sources.view.outside
        assert outside is not None, "the feeds are of this process"
        return outside(venue)

    async def _introduce(self, link: Link, spawned: Spawned) -> None:
        """Tell a worker everything, stream by stream; news of those that it knows go on."""
        sources = self._sources
        link.pipe.put(
            frames.Hello(
                __version__,
                wire.VERSION,
                link.worker,
                pickle.dumps(self._settings),
                sources.store.epoch,
                sources.journal.epoch,
                sources.journal.shared_epoch,
                sources.journal.others is not None,
                spawned.binds,
            )
        )
        self.flush()  # what was opened before is in the snapshot
        self._links[link.worker] = link
        link.pipe.put(frames.Feed(list(self._outgoing.aliases())))
        for stream in self._outgoing.streams:
            self.flush()
            item = self._outgoing.snapshot(stream)
            if item is not None:
                link.pipe.put(frames.Feed([item]))
                link.opened.add(stream)
            if link.pipe.bytes_waiting > _SNAPSHOT_BYTES:
                await link.pipe.wait_empty()
            await trio.lowlevel.checkpoint()
        self.flush()
        link.whole = True
        self.views.tell(link, self.views.now())

    # What workers say

    def _handle(self, link: Link, frame: Any) -> None:
        link.silent = 0
        match frame:
            case frames.Ready():
                link.ready.set()
                link.pipe.stall_s = _STALL_S
            case frames.Failed(problem):
                link.problem = problem
            case frames.Report():
                self.pages.note(link, frame)
            case frames.Keep(stream):
                self._outgoing.keep(stream)
            case frames.Left(key, group):
                self._places.leave(link.worker, key, group)
            case frames.Meet(user_id):
                self._sources.journal.meet(user_id)
            case frames.Wanted():
                self.views.note_wanted(link, frame)
            case frames.HangUp(number):
                link.lines.hang_up(number)
            case frames.Spent():
                self._pass_on_spent(link, frame)
            case frames.Span(name, took_s, error, attributes):
                spans = self._metrics.spans
                spans.add(name, took_s, error=error, **attributes, worker=link.worker)
            case frames.Line(event):
                say_again(event, link.worker)

    def _pass_on_spent(self, link: Link, spent: frames.Spent) -> None:
        data = frames.encoded(spent)
        for other in self._links.values():
            if other is not link:
                other.pipe.put_encoded(data)

    async def _answer(self, link: Link, what: str, body: bytes) -> bytes:
        answer = await self._answers.of(link, what, body)
        self.flush()
        if what == questions.DEMAND:  # the worker is to find by name what it was granted
            self.views.note_answer(link, questions.granted_of(answer))
        return answer

    # How long they live

    async def _look(self) -> Never:
        while True:
            await trio.sleep(_LOOK_S)
            view = self.views.now()
            for link in self._links.values():
                if link.whole:
                    self.views.tell(link, view)
                link.silent += link.ready.is_set()
                if link.silent >= _SILENT_LOOKS:
                    link.pipe.give_up("it gives no sign of life", "silent")

    # The workers' lives

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run all workers until cancelled, or until :meth:`drain` has ended them.  Started when all
        serve.  Raises StartError where one says at its first start why it cannot, or ends at the
        first starts all the same."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._flush_turns, name="flusher")
            nursery.start_soon(self._look, name="view of the feeds")
            async with trio.open_nursery() as lives:
                async with trio.open_nursery() as starting:
                    for worker in range(1, self._settings.server.workers + 1):
                        starting.start_soon(lives.start, partial(self._live, worker))
                task_status.started()
            nursery.cancel_scope.cancel()

    async def _live(self, worker: int, task_status: trio.TaskStatus[None]) -> None:
        backoff, first, left = Backoff(_RESTART_MIN_S, _RESTART_MAX_S), True, _FIRST_STARTS
        while not self._draining:
            began = trio.current_time()
            told = task_status if first else None
            try:
                problem, reason, said_why, was_ready = await self._run_once(worker, told)
            except* OSError as errors:  # no process, no descriptor, no memory for another
                problem, reason = str(errors.exceptions[0]), "ended"
                said_why, was_ready = False, False
            if self._draining:
                return
            first, left = first and not was_ready, left - 1
            if first and (said_why or reason != "ended" or not left):
                raise StartError(f"server.workers: worker {worker} did not start: {problem}")
            backoff.succeeded(trio.current_time() - began)
            delay_s = backoff.next_delay_s(self._environment.random)
            self._metrics.worker_ends.labels(reason).inc()
            log.error(
                "worker.ended",
                worker=worker,
                reason=reason,
                problem=problem,
                again_s=round(delay_s, 1),
            )
            await trio.sleep(delay_s)

    async def _run_once(
        self, worker: int, task_status: trio.TaskStatus[None] | None
    ) -> tuple[str, str, bool, bool]:
        """Returns why it ended, that in one word, whether it said so itself, and whether it has
        served."""
        async with self._fleet.start(worker) as spawned:
            link: Link

            async def answer(what: str, body: bytes) -> bytes:
                return await self._answer(link, what, body)

            pipe = Pipe(
                spawned.stream,
                frames.ToParent,
                lambda frame: self._handle(link, frame),
                answer,
                max_bytes=_MAX_BYTES,
                stall_s=_START_S,  # it loads its program first
            )
            try:
                async with trio.open_nursery() as nursery:
                    link = Link(worker, spawned.pid, pipe, HeldLines(self._outside, nursery))
                    nursery.start_soon(self._introduce, link, spawned, name="snapshot")
                    nursery.start_soon(self._await_ready, link, task_status, name="ready")
                    try:
                        await pipe.run()
                    except PipeLost as lost:
                        problem = link.problem or str(lost)
                    nursery.cancel_scope.cancel()
            finally:
                self._forget(worker)
            if pipe.reason == "ended":
                with trio.move_on_after(_LOOK_S):
                    problem = link.problem or await spawned.ended()
        return problem, pipe.reason, bool(link.problem), link.ready.is_set()

    async def _await_ready(self, link: Link, task_status: trio.TaskStatus[None] | None) -> None:
        with trio.move_on_after(_START_S) as deadline:
            await link.ready.wait()
        if deadline.cancelled_caught:
            link.pipe.give_up(f"it did not serve within {_START_S:g} s", "silent")
            return
        log.info("worker.ready", worker=link.worker, pid=link.pid)
        self.pages.sum_up()
        if task_status is not None:
            task_status.started()

    def _forget(self, worker: int) -> None:
        self._links.pop(worker, None)
        self._places.forget(worker)
        self.pages.forget(worker)
        self._left.set()

    def apply(self, settings: Settings) -> None:
        """Settings that were read anew and checked; workers that start later have them, too."""
        self._settings = settings
        for link in self._links.values():
            link.pipe.put(frames.Apply(pickle.dumps(settings)))

    def begin_drain(self) -> None:
        """Ask all workers to end.  Their clients hear of nothing that is published later."""
        if self._draining:
            return
        self.flush()
        self._draining = True
        for link in self._links.values():
            link.pipe.put(frames.Drain())

    async def drain(self) -> None:
        """Wait until all workers have ended, which are asked to; the caller bounds it."""
        self.begin_drain()
        while self._links:
            self._left = trio.Event()
            await self._left.wait()


def _concerns(opened: set[int], item: wire.Item) -> bool:
    """Whether a worker that knows these streams is to have the item; one more may be opened."""
    if isinstance(item, wire.Aliased | wire.Checkpoint):
        return True
    if isinstance(item, wire.Opened):
        opened.add(item.stream)
        return True
    return item.stream in opened
