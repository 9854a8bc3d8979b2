"""``copy-store FILE``: candles or private events of a SQLite file into PostgreSQL."""

from pathlib import Path

import click

from ..settings import DatabaseUrl
from .options import Refused, Wanted, put, settings_options


@click.command(
    "copy-store",
    short_help="A SQLite store into PostgreSQL.",
    help="Copy FILE, a SQLite store of candles or private events, into the PostgreSQL of the"
    " settings (store.url, settlement.url) or of --to. End the service first.",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--to", "url", metavar="URL", help="postgresql://user@host:port/database")
@settings_options
@click.pass_obj
def command(
    wanted: Wanted, file: Path, url: str | None, files: tuple[str, ...],
    assignments: tuple[str, ...],
) -> int:  # fmt: skip
    from ..store.copying import copy_into_postgres

    target = _target(wanted.joined(files, assignments), file, url)
    counts = copy_into_postgres(file, target)
    rows = ", ".join(f"{count:,} {table}" for table, count in counts.items())
    return put(f"copied into {target.shown}: {rows}")


def _target(wanted: Wanted, file: Path, url: str | None) -> DatabaseUrl:
    """Raises Refused, SettingsError."""
    if url is not None:
        try:
            return DatabaseUrl(url)
        except ValueError as error:
            raise Refused(f"--to: {error}") from None
    settings = wanted.load()
    own = settings.settlement.url if file.name.endswith(".private.db") else DatabaseUrl()
    target = own or settings.store.url
    if not target:
        raise Refused("--to: missing, and the settings name no store.url")
    return target
