"""``proxy-test``: ``check --connect`` by the name under which people look for it."""

import click

from .check import connect
from .options import Wanted, settings_options


@click.command(
    "proxy-test",
    short_help="The same as check --connect.",
    help="Dial every venue through every proxy, a line per step (the same as check --connect).",
)
@settings_options
@click.option("--for", "watch", metavar="5m", help="Then count messages so long.")
@click.option("--json", "as_json", is_flag=True, help="A JSON line per step.")
@click.pass_obj
def command(
    wanted: Wanted, files: tuple[str, ...], assignments: tuple[str, ...], watch: str | None,
    as_json: bool,
) -> int:  # fmt: skip
    return connect(wanted.joined(files, assignments), watch, as_json=as_json)
