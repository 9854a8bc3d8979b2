"""``run``: the service, with a log that reads like a person on a terminal."""

import gc
import os
import shutil
import time
from functools import partial

import click
import trio

from .. import logs, service
from ..environment import real_environment
from ..settings import Settings
from .options import Wanted, settings_options, warn_of_misspelt
from .startup import box, narrate
from .terminal import Narrator

_COLLECT_AFTER = (50_000, 20, 20)
"""Objects more than before; collections of the young; and of the middle-aged before a full one."""


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


def spare_collector() -> None:
    """Set the garbage collector for a process that has started and has many clients.

    A full collection looks at all that lives, and everybody waits for it: with 2,000 clients coming
    in, the loop stood for 0.5 s again and again, and for 0.04 s like this.  What was made for the
    start stays and is not looked at again; sessions and messages are freed without the collector
    (no cycle is left of them: tests/test_cost.py), so it may come seldom.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


async def serve(settings: Settings, wanted: Wanted, narrator: Narrator | None) -> None:
    """The service, and beside it what a terminal shows."""
    begin = partial(
        service.run, settings, real_environment(), environ=os.environ, reload=wanted.load
    )
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[service.Ready]) -> None:
            await begin(task_status=task_status)
            nursery.cancel_scope.cancel()

        ready = await nursery.start(run)
        spare_collector()
        if narrator is not None:
            nursery.start_soon(narrate, ready, narrator, logs.say, time.monotonic, name="terminal")
