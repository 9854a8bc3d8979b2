"""``run``: the service, with a log that reads like a person on a terminal."""

import os
import shutil
import time
from functools import partial

import click
import structlog
import trio

from .. import logs, service
from ..environment import real_environment
from ..settings import Settings
from ..supervise import described, root_cause
from .options import Wanted, settings_options, warn_of_misspelt
from .startup import box, narrate
from .terminal import Narrator

log = structlog.get_logger()


@click.command("run", help="Start the service (what happens without a command, too).")
@settings_options
@click.pass_obj
def command(wanted: Wanted, files: tuple[str, ...], assignments: tuple[str, ...]) -> int:
    return start(wanted.joined(files, assignments))


def start(wanted: Wanted) -> int:
    """Run the service until a signal.  Raises SettingsError and StartError."""
    warn_of_misspelt()
    settings = wanted.load()
    narrator = make_narrator(settings, demo=wanted.is_demo)
    tell = None if narrator is None else lambda event: narrator.take(event, time.monotonic())
    with logs.writing(settings.logging, tell):
        trio.run(serve, settings, wanted, narrator)
    return 0


def make_narrator(settings: Settings, *, demo: bool) -> Narrator | None:
    """None: the log is JSON."""
    if not logs.is_console(settings.logging):
        return None
    width = shutil.get_terminal_size((100, 24)).columns
    return Narrator(
        width,
        partial(box, settings, width=width, demo=demo),
        colours=os.environ.get("NO_COLOR", "") == "" and os.isatty(1),
        every=settings.logging.level == "debug",
        began_s=time.monotonic(),
    )


async def serve(settings: Settings, wanted: Wanted, narrator: Narrator | None) -> None:
    """The service, and beside it what a terminal shows."""
    begin = partial(
        service.run, settings, real_environment(), environ=os.environ, reload=wanted.load
    )
    if narrator is None:
        await begin()
        return
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[service.Ready]) -> None:
            await begin(task_status=task_status)
            nursery.cancel_scope.cancel()

        ready = await nursery.start(run)
        nursery.start_soon(tell_terminal, ready, narrator, name="terminal")


async def tell_terminal(ready: service.Ready, narrator: Narrator) -> None:
    """A bug in what a terminal shows costs its lines, not the service."""
    try:
        await narrate(ready, narrator, logs.say, time.monotonic)
    except Exception as error:
        cause = root_cause(error)
        log.error("terminal.failed", problem=described(cause), exc_info=cause)
