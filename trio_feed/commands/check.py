"""``check``: the settings; with ``--connect`` a real dial to every venue through every proxy."""

import json
import sys

import click

from ..settings import masked
from ..settings.fields import Duration
from .options import Refused, Wanted, put, say_notes, settings_options, warn_of_misspelt


@click.command(
    "check",
    short_help="Print the settings; --connect: try out every connection.",
    help="Print the effective settings, or try out every connection.",
)
@settings_options
@click.option(
    "--connect", "dial", is_flag=True, help="Dial every venue through every proxy, step by step."
)
@click.option("--for", "watch", metavar="5m", help="With --connect: then count messages so long.")
@click.option("--json", "as_json", is_flag=True, help="A JSON line per step.")
@click.pass_obj
def command(
    wanted: Wanted, files: tuple[str, ...], assignments: tuple[str, ...], dial: bool,
    watch: str | None, as_json: bool,
) -> int:  # fmt: skip
    wanted = wanted.joined(files, assignments)
    if dial:
        return connect(wanted, watch, as_json=as_json)
    if watch is not None:
        _seconds(watch)
        raise Refused("--for: counts messages after --connect; write both")
    return print_settings(wanted)


def connect(wanted: Wanted, watch: str | None, *, as_json: bool) -> int:
    """Raises SettingsError, Refused."""
    watch_s = _seconds(watch)
    warn_of_misspelt()
    from .probe_report import connect_all

    settings = wanted.load()
    say_notes(settings)
    return connect_all(settings, sys.stdout, as_json=as_json, watch_s=watch_s)


def _seconds(watch: str | None) -> float:
    """Raises Refused."""
    try:
        return Duration(watch).seconds if watch is not None else 0.0
    except ValueError as error:
        raise Refused(f"--for: {error}") from None


def print_settings(wanted: Wanted) -> int:
    """Raises SettingsError."""
    warn_of_misspelt()
    settings = wanted.load()
    say_notes(settings)
    return put(json.dumps(masked(settings), indent=2))
