"""A worker: the push side of the service over a bus, a store and a journal that are elsewhere.

::

    run_worker
    ├─ pipe                      what the parent says; its end is the worker's
    ├─ engine following          of a node in a cluster: the logs, which the parent reads for it
    ├─ push servers              accept until the worker is drained
    └─ write coalescer, client sweeper, unused clients, report, what was spent

It lives as long as its pipe.  The parent drains it, or its end (EOF) does: then the clients are
asked to come back, and within a moment the process is gone.
"""

import json
import pickle
import resource
from collections.abc import Callable
from functools import partial
from typing import Any, Never

import structlog
import trio
from attrs import define, field

from .. import __version__
from ..bus import wire
from ..bus.remote import OutOfStep, RemoteBus
from ..cluster.caught_up import CaughtUp
from ..environment import Environment
from ..errors import SettingsError, StartError
from ..metrics import Metrics, total
from ..push.app import PushApp
from ..push.edge.configuration import tls_context
from ..push.edge.spending import Spending
from ..push.edge.tls import Certificate
from ..serving import start_dialects, start_server, sweep
from ..settings import Settings
from ..store import CandleReader
from ..wiring import UpstreamView, make_app, make_hub
from . import frames, questions
from .counts import Growth
from .pipe import Pipe, PipeLost
from .remote import RemoteJournal, RemotePages, RemotePlaces, RemoteSpans, RemoteStore
from .remote_feeds import KnownFeeds, RemoteDemand
from .remote_log import make_following
from .remote_outside import RemoteLines
from .share import share_of

log = structlog.get_logger()

REPORT_S = 1.0
SPENT_S = 0.1
"""So long each worker spends of a budget that holds for all as if it were alone."""
_STALL_S = 10.0
_MAX_BYTES = 64 * 2**20
_FAREWELL_S = 1.0
_FIRST_READ_S = 5.0
_RETURN_MS = (500, 5_000)

MakeEnvironment = Callable[[frames.Hello, Callable[[Any], None]], Environment]
"""The environment of a worker that was told so much; its ``listen`` knows the addresses of it.  The
callable puts a frame for the parent."""


class _Refused(Exception):
    """The worker cannot serve; it says to the parent why."""


@define(eq=False)
class _Parts:
    """What the worker is made of, once it knows its settings."""

    bus: RemoteBus
    app: PushApp
    demand: RemoteDemand
    journal: RemoteJournal
    certificate: Certificate
    send_away: Callable[[], None]
    """Ask the clients to come back."""


@define(eq=False)
class _Worker:
    make_environment: MakeEnvironment
    pipe: Pipe = field(init=False)
    hello: frames.Hello | None = None
    greeted: trio.Event = field(factory=trio.Event)
    whole: trio.Event = field(factory=trio.Event)
    """All streams are there: the parent sends the first view behind them."""
    draining: trio.Event = field(factory=trio.Event)
    known: KnownFeeds = field(factory=KnownFeeds)
    metrics: Metrics = field(factory=Metrics)
    growth: Growth = field(factory=Growth)
    parts: _Parts | None = None
    early: list[Any] = field(factory=list)
    """Frames that came before the parts were made."""

    def handle(self, frame: Any) -> None:
        match frame:
            case frames.Hello():
                self.hello = frame
                self.greeted.set()
            case frames.Drain():
                self.draining.set()
                if self.parts is not None:  # at once: behind it comes how the feeds end
                    self.parts.send_away()
            case frames.View():
                listed = self.known.take(frame)
                if self.parts is not None:  # a topic may have been opened before its name came
                    for venue, symbol in listed:
                        self.parts.app.context.hub.listed(venue, symbol)
                self.whole.set()
            case _ if self.parts is None:
                self.early.append(frame)
            case _:
                self._take(self.parts, frame)

    def _take(self, parts: _Parts, frame: Any) -> None:
        match frame:
            case frames.Feed(items):
                try:
                    parts.bus.take(items)
                except (OutOfStep, KeyError, wire.BadItem) as error:
                    log.error("worker.out_of_step", problem=str(error))
                    self.pipe.give_up(f"out of step: {error}")
            case frames.Private(messages):
                parts.app.context.access.feed.publish(messages)
            case frames.Others(users):
                parts.journal.hear(users)
            case frames.Spent(spent):
                parts.app.context.spending.take(spent, trio.current_time())
            case frames.Apply(settings):
                _apply(parts, pickle.loads(settings))

    def begin(self, parts: _Parts) -> None:
        """Nothing waits between making the parts and this."""
        self.parts, early, self.early = parts, self.early, []
        for frame in early:
            self._take(parts, frame)

    async def answer(self, what: str, _body: bytes) -> bytes:
        """What the parent asks."""
        if what == questions.REPORT:
            self.pipe.put(self.report())
            return b""
        assert what == questions.CLIENTS, what
        assert self.parts is not None, "it is asked when it is ready"
        sessions = list(self.parts.app.sessions)
        return questions.encode([json.dumps(session.statistics()) for session in sessions])

    def report(self) -> frames.Report:
        metrics, used = self.metrics, resource.getrusage(resource.RUSAGE_SELF)
        gauges = (
            metrics.clients,
            metrics.subscriptions,
            metrics.queued_bytes,
            metrics.most_queued_bytes,
            metrics.waiting_bytes,
        )
        clients, subscriptions, queued, most, waiting = map(total, gauges)
        return frames.Report(
            list(self.growth.of(metrics.samples())),
            (clients, subscriptions, queued, most, waiting),
            _resident_bytes(),
            used.ru_utime + used.ru_stime,
        )

    async def tell_spent(self, spending: Spending) -> Never:
        while True:
            await trio.sleep(SPENT_S)
            if spent := spending.collect():
                self.pipe.put(frames.Spent(list(spent)))

    async def report_on(self) -> Never:
        while True:
            assert self.parts is not None, "it serves"
            self.pipe.put(self.report())
            self.parts.demand.report()
            await trio.sleep(REPORT_S)


async def run_worker(stream: trio.abc.Stream, make_environment: MakeEnvironment) -> str:
    """Serve until the parent drains the worker or is gone.  Returns why it ended.  Closes the
    stream."""
    worker = _Worker(make_environment)
    pipe = worker.pipe = Pipe(
        stream,
        frames.ToWorker,
        worker.handle,
        worker.answer,
        max_bytes=_MAX_BYTES,
        stall_s=_STALL_S,
    )
    problem = "drained"
    async with trio.open_nursery() as nursery:

        async def listen_to_parent() -> None:
            nonlocal problem
            try:
                await pipe.run()
            except PipeLost as lost:
                problem = str(lost)
                for event in (worker.greeted, worker.whole, worker.draining):
                    event.set()

        nursery.start_soon(listen_to_parent, name="pipe")
        await worker.greeted.wait()
        if worker.hello is not None:
            try:
                await _serve(worker, worker.hello)
            except (_Refused, StartError, SettingsError) as error:
                problem = str(error)
                pipe.put(frames.Failed(problem))
            with trio.move_on_after(_FAREWELL_S):
                await pipe.wait_empty()
        nursery.cancel_scope.cancel()
    return problem


async def _serve(worker: _Worker, hello: frames.Hello) -> None:
    if (hello.version, hello.wire) != (__version__, wire.VERSION):
        problem = f"the program is {__version__} now, the service {hello.version}: restart it"
        raise _Refused(problem)
    settings = share_of(pickle.loads(hello.settings))
    environment, pipe = worker.make_environment(hello, worker.pipe.put), worker.pipe
    bus = RemoteBus(
        history_rows=settings.kline.history_data_limit,
        resume_messages=settings.kline.resume_messages,
        tell_kept=lambda stream: pipe.put(frames.Keep(stream)),
        now=trio.current_time,
    )
    in_cluster = settings.engine.kind != "memory"
    following = make_following(pipe, settings, environment) if in_cluster else None
    hub = make_hub(following or bus, settings, environment, worker.metrics)
    known = worker.known
    demand = RemoteDemand(pipe, known, hub)
    view = UpstreamView(
        known.report,
        known.why_not,
        partial(known.listing, hub),
        demand,
        None if in_cluster else RemoteLines(pipe).outside,
    )
    journal = RemoteJournal(pipe, hello.journal_epoch, hello.shared_epoch, hello.shared)
    worker.metrics.spans = RemoteSpans(pipe)
    store: CandleReader = RemoteStore(pipe)
    if following is not None:
        store = CaughtUp(store, following.handed_out)
    spending = Spending(shared=True)
    app = make_app(settings, environment, store, journal, hub, view, worker.metrics, spending)
    app.operators = RemotePages(pipe)
    certificate = Certificate(tls_context(settings.server))
    return_ms = partial(environment.random.randint, *_RETURN_MS)
    send_away = partial(app.disconnect_all, return_ms)
    worker.begin(_Parts(bus, app, demand, journal, certificate, send_away))
    async with trio.open_nursery() as servers, trio.open_nursery() as edge:
        edge.start_soon(hub.run, name="write coalescer")
        if journal.shared:
            edge.start_soon(app.context.access.feed.follow, name="journal follower")
        edge.start_soon(sweep, app, settings, name="client sweeper")
        edge.start_soon(app.close_unused, settings.websocket.unused_timeout_s, name="unused")
        serving = app, settings, environment, worker.draining, certificate
        places = partial(RemotePlaces, pipe)
        await worker.whole.wait()
        if following is not None:
            edge.start_soon(following.run, name="engine following")
            with trio.move_on_after(_FIRST_READ_S):  # see Node.until_reads
                await following.begun.wait()
        await start_server(servers, *serving, places)
        await start_dialects(servers, *serving, places)
        edge.start_soon(worker.report_on, name="report")
        edge.start_soon(worker.tell_spent, spending, name="what was spent")
        pipe.put(frames.Ready())
        await worker.draining.wait()
        send_away()
        with trio.move_on_after(_FAREWELL_S):
            await app.wait_empty()
        edge.cancel_scope.cancel()
        servers.cancel_scope.cancel()


def _apply(parts: _Parts, settings: Settings) -> None:
    """The parent has checked them; a file may have gone since."""
    try:
        context = tls_context(settings.server)
        parts.app.replace_keys(settings.auth, settings.settlement.publishers)
    except SettingsError as error:
        log.error("settings.refused", problem=str(error))
    else:
        parts.certificate.replace(context)


def _resident_bytes() -> float:
    """0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return float(int(file.read().split()[1]) * resource.getpagesize())
    except (OSError, ValueError, IndexError):
        return 0.0
