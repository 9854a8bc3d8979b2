"""``run``: the service, with a log that reads like a person on a terminal."""

import os
import shutil
import sys
import time
from functools import partial

import click
import structlog
import trio
from attrs import evolve

from .. import logs, service
from ..collector import collect_seldom, spare_collector
from ..environment import real_environment
from ..settings import Settings
from ..supervise import described, root_cause
from .advice import idle_proxies
from .options import Refused, Wanted, put, settings_options, warn_of_misspelt
from .startup import box, narrate
from .terminal import Narrator

log = structlog.get_logger()


@click.command(
    "run",
    short_help="Start the service (what happens without a command, too).",
    help="Start the service (what happens without a command, too).  With --chaos the simulated"
    " exchange and the proxy to it have outages, to test your own program against.",
)
@settings_options
@click.option("--chaos", metavar="NAMES", help='"list" says what there is; all, or with commas.')
@click.option(
    "--chaos-per-hour", "per_hour", type=click.FloatRange(0.1, 3600), default=60.0,
    show_default=True,
)  # fmt: skip
@click.pass_obj
def command(
    wanted: Wanted, files: tuple[str, ...], assignments: tuple[str, ...], chaos: str | None,
    per_hour: float,
) -> int:  # fmt: skip
    wanted = wanted.joined(files, assignments)
    if chaos is None:
        return start(wanted)
    from .chaos import chosen, listed

    if chaos == "list":
        return put(listed())
    return start(wanted, chosen(chaos, "--chaos"), per_hour)


def start(wanted: Wanted, chaos: tuple[str, ...] = (), per_hour: float = 0.0) -> int:
    """Run the service until a signal; ``chaos``: faults of the simulated exchange.  Raises
    SettingsError, StartError and Refused."""
    warn_of_misspelt()
    settings = wanted.load()
    if chaos and not settings.simulator.enabled:
        raise Refused("--chaos: only the simulated exchange has any; set simulator.enabled=true")
    if chaos and settings.simulator.venue == "spinpet":
        raise Refused("--chaos: the outages of spinpet are in scripts/simulate only")
    narrator = make_narrator(settings, demo=wanted.is_demo)
    collect_seldom()
    tell = None if narrator is None else lambda event: narrator.take(event, time.monotonic())
    with logs.writing(settings.logging, tell):
        trio.run(serve, settings, wanted, narrator, chaos, per_hour)
    return 0


def make_narrator(settings: Settings, *, demo: bool) -> Narrator | None:
    """None: the log is JSON."""
    if not logs.is_console(settings.logging):
        return None
    width = shutil.get_terminal_size((100, 24)).columns
    return Narrator(
        width,
        partial(box, settings, width=width, demo=demo),
        colours=logs.shows_colours(os.environ, sys.platform, terminal=sys.stdout.isatty()),
        every=settings.logging.level == "debug",
        began_s=time.monotonic(),
        idle_proxies=idle_proxies(settings),
    )


async def serve(
    settings: Settings,
    wanted: Wanted,
    narrator: Narrator | None,
    chaos: tuple[str, ...] = (),
    per_hour: float = 0.0,
) -> None:
    """The service, and beside it what a terminal shows."""
    environment = real_environment()
    begin = partial(service.run, settings, environment, environ=os.environ, reload=wanted.load)
    if chaos:
        from ..simulator.chaos import make_clocks
        from .chaos import start_chaos

        clocks = make_clocks()
        begin = partial(
            service.run,
            settings,
            evolve(environment, now_ms=clocks.wall_ms),
            environ=os.environ,
            reload=wanted.load,
            start_exchange=partial(start_chaos, chaos, per_hour, clocks),
        )
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[service.Ready]) -> None:
            await begin(task_status=task_status)
            nursery.cancel_scope.cancel()
            await trio.lowlevel.checkpoint()  # ended by a signal before it was up: no bug

        ready = await nursery.start(run)
        spare_collector()
        if narrator is not None:
            nursery.start_soon(tell_terminal, ready, narrator, name="terminal")


async def tell_terminal(ready: service.Ready, narrator: Narrator) -> None:
    """A bug in what a terminal shows costs its lines, not the service."""
    try:
        await narrate(ready, narrator, logs.say, time.monotonic)
    except Exception as error:
        cause = root_cause(error)
        log.error("terminal.failed", problem=described(cause), exc_info=cause)
