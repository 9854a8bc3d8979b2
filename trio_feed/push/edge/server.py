"""Serve an application: HTTP with hypercorn's protocol code, WebSockets by ourselves.

Only this file, ``shared``, ``connection`` and ``hypercorn_contract`` import hypercorn.

Hypercorn's own ``serve`` makes every connection a child of one nursery, so an error
that one client provokes ends the service for all, and its sends cannot be cancelled, so one frozen
client blocks the exit.  We put its parts together differently:

* every connection has a task, a cancel scope and an error boundary of its own (``clients``);
* its bytes go through a :class:`ClientStream`, which can always be aborted;
* each request head is checked between h11 and hypercorn (``admission_check``): Host, Origin, no
  HTTP/2, no h2c, and nothing in the fields over which hypercorn 0.18 stumbles;
* a connection is ``accepted`` first and looked at: what asks for a WebSocket (``switching``) goes
  on as one (``websocket``) and as nothing else, so that a client costs memory only for that;
  anything else goes on as hypercorn's (``connection``), which may still ask for a WebSocket later;
* each WebSocket frame is checked (``inflate``): size, form, compression;
* whatever waits has a deadline, which :class:`ServerLimits` or a constant of its file names.

Requests find in ``scope["state"]["while_there"]`` a context for work that ends with their client.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import trio
from hypercorn.trio.worker_context import WorkerContext

from ...errors import StartError
from ...metrics import Metrics
from ..fanout.waiting import WaitingBytes
from .accepted import Accepted
from .admission_check import AdmissionRules
from .clients import ALIVE, Clients, Places, Probes
from .error_boundary import ErrorBoundary
from .hypercorn_contract import check_hypercorn, hypercorn_config
from .lifespan import Lifespan
from .limits import ServerLimits
from .refusals import Refusals
from .shared import Application, Shared
from .throttle import RowBudgets

__all__ = ["Application", "check_hypercorn", "serve"]


async def serve(
    app: Application,
    *,
    listeners: Sequence[trio.abc.Listener[Any]],
    limits: ServerLimits,
    rules: AdmissionRules,
    metrics: Metrics,
    stop_accepting: trio.Event,
    waiting: WaitingBytes | None = None,
    probes: Probes = ALIVE,
    places: Places | None = None,
    requests: RowBudgets | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled.  ``task_status.started()`` comes once connections are accepted.

    ``listeners`` are bound (``environment.listen``) and closed here in every case.  After
    ``stop_accepting`` it refuses new connections and goes on with the others.  When cancelled:
    accepting stops, WebSockets that are not closing and idle connections are cancelled, what is
    being finished (HTTP exchanges, closing WebSockets) has ``shutdown_grace_s``, and the rest is
    aborted.  An app sends its last messages before, or in a shielded, bounded ``finally``.

    ``waiting`` counts the bytes that wait for clients, those of other servers too.  ``probes`` are
    answered also where ``max_connections`` is reached.  ``places`` are asked for each client, where
    other processes serve the same port.  ``requests``: how many each address may send; None: as the
    limits say, here.

    Raises StartError where hypercorn is not the one we know, or the app's start-up fails.
    """
    async with AsyncExitStack() as stack:
        for listener in listeners:
            await stack.enter_async_context(listener)
        check_hypercorn()
        life = Lifespan(
            app.http,
            startup_timeout_s=limits.startup_timeout_s,
            shutdown_grace_s=limits.shutdown_grace_s,
        )
        shared = Shared(
            app=app,
            config=hypercorn_config(limits),
            context=WorkerContext(None),
            state=life.state,
            limits=limits,
            rules=rules,
            boundary=ErrorBoundary(metrics.crashes.inc),
            refusals=Refusals(metrics),
            requests=requests or RowBudgets(limits.http_per_s, limits.http_burst),
            waiting=WaitingBytes() if waiting is None else waiting,
        )
        clients = Clients(
            partial(Accepted, shared),
            limits,
            shared.boundary,
            shared.refusals.note,
            refuse=app.refuse,
            ending=shared.context.terminated.set,  # hypercorn then keeps nothing alive
            probes=probes,
            places=places,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(life.run, name="lifespan")
            try:
                await life.start()
                if life.failure is None:
                    await clients.run(listeners, stop_accepting, task_status)
            finally:
                await life.stop()
    if life.failure is not None:
        raise StartError(f"push server: {life.failure}")
