"""``status``: how a running service stands."""

import json
from collections import Counter
from collections.abc import Callable
from io import StringIO
from typing import Any

import click
import trio

from ..environment import Environment
from .options import Refused, put
from .remote import get, http_url, url_option, wait_for_signal

_PATH = "/api/v1/status"
_EVERY_S = 2.0


@click.command(
    "status",
    short_help="How a running service stands.",
    help="How a running service stands: venues, connections, proxies, clients.",
)
@click.option("--json", "as_json", is_flag=True, help="The status page as it is.")
@click.option("--watch", "watching", is_flag=True, help="Every two seconds, until Ctrl-C.")
@url_option
def command(as_json: bool, watching: bool, url: str) -> int:
    if watching:
        if as_json:
            raise click.UsageError("--watch is a table; it does not go with --json")
        trio.run(_watch_terminal, url)
        return 0
    page = trio.run(get, url, _PATH, {})
    return put(json.dumps(page, indent=2) if as_json else text(page, http_url(url)))


async def _watch_terminal(url: str) -> None:
    """Until Ctrl-C.  Without a terminal one table after the other."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_signal, nursery.cancel_scope)
        console = Console(highlight=False)
        if not console.is_terminal:
            await watch(url, put)
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
            await watch(url, lambda said: live.update(Text(said), refresh=True))


async def watch(
    url: str, show: Callable[[str], object], environment: Environment | None = None
) -> None:
    """The table again and again, until cancelled; what is not answered is said below the last one
    and asked again.  Raises Refused where the first question fails."""
    shown = text(await get(url, _PATH, {}, environment), http_url(url))
    show(shown)
    while True:
        await trio.sleep(_EVERY_S)
        try:
            shown = text(await get(url, _PATH, {}, environment), http_url(url))
            show(shown)
        except Refused as error:
            show(f"{shown}\n{error}; asked again")


def rows(page: dict[str, Any]) -> list[tuple[str, ...]]:
    """Connection by connection: venue, number, exit, state, streams, messages, trouble.  Pure."""
    found: list[tuple[str, ...]] = []
    for venue, facts in page["venues"].items():
        for connection in facts["connections"]:
            trouble = connection["problem"] or f"{len(connection['refused'])} refused" * bool(
                connection["refused"]
            )
            found.append(
                (
                    venue,
                    str(connection["id"]),
                    connection["exit"] or "-",
                    connection["status"],
                    str(len(connection["streams"])),
                    f"{connection['message_count']:,}",
                    trouble,
                )
            )
        if not facts["connections"]:
            problems = "; ".join(f"{s}: {why}" for s, why in facts["unavailable"].items())
            found.append((venue, "-", "-", "no connection", "0", "0", problems))
    return found


def sums(page: dict[str, Any]) -> list[str]:
    """What is below the table."""
    lines = []
    for venue, facts in page["venues"].items():
        states = Counter(str(stream["state"]) for stream in facts["streams"].values())
        shown = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none"
        lines.append(
            f"{venue}: {facts['series']} series ({facts['series_behind']} behind,"
            f" {facts['series_held']} held), streams: {shown}, {facts['questions']} questions wait"
        )
        if (asked := facts.get("on_demand")) is not None:
            names = " ".join(asked["symbols"]) or "none"
            lines.append(f"  on demand, at most {asked['max_symbols']}: {names}")
        for proxy in facts["proxies"]:
            problem = f": {proxy['problem']}" if proxy["state"] != "healthy" else ""
            lines.append(f"  {proxy['kind']} proxy {proxy['address']} {proxy['state']}{problem}")
    lines.append(f"{len(page['clients'])} clients, {page['store_pending_rows']} rows not on disk")
    return lines


def node_rows(page: dict[str, Any]) -> list[tuple[str, ...]]:
    """Node by node: name, roles, version, clients, how long ago it said so, shards, trouble."""
    return [
        (
            name,
            " ".join(node["roles"]),
            node["version"],
            str(node["clients"]),
            f"{node['age_s']:.0f} s",
            " ".join(node["shards"]),
            node["not_ready"],
        )
        for name, node in page["nodes"].items()
    ]


def cluster_sums(page: dict[str, Any]) -> list[str]:
    """What is below the table of nodes."""
    engine, database = page["engine"], page["database"]
    lines = [
        f"node {page['node']}; engine {engine['kind']}: {engine['problem'] or 'ok'};"
        f" database: {database['problem'] or 'ok'}"
    ]
    if engine.get("lacks"):
        lines.append(f"the engine is not as it has to be: {engine['lacks']}")
    if free := [shard for shard, owner in page["shards"].items() if not owner]:
        lines.append(f"fed by nobody: {' '.join(free)}")
    for name, venues in page.get("differs", {}).items():
        lines.append(f"{name} has other [exchanges] than {page['node']}: {' '.join(venues)}")
    for venue, symbols in page.get("unfed", {}).items():
        lines.append(f"{page['node']} names what nobody feeds of {venue}: {' '.join(symbols)}")
    return lines


def text(page: dict[str, Any], url: str) -> str:
    """As a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"trio_feed {page['version']} at {url}", title_justify="left")
    for name in ("venue", "no.", "exit", "state", "streams", "messages", "trouble"):
        table.add_column(name, justify="right" if name in ("streams", "messages") else "left")
    for row in rows(page):
        table.add_row(*row)
    out = StringIO()
    console = Console(file=out, width=_width(), color_system=None, markup=False, highlight=False)
    console.print(table)
    lines = [out.getvalue().rstrip(), *sums(page)]
    if page.get("nodes"):
        nodes, out = Table(title_justify="left"), StringIO()
        for name in ("node", "roles", "version", "clients", "heard", "feeds", "trouble"):
            nodes.add_column(name, justify="right" if name in ("clients", "heard") else "left")
        for row in node_rows(page):
            nodes.add_row(*row)
        Console(file=out, width=_width(), color_system=None, markup=False).print(nodes)
        lines += [out.getvalue().rstrip(), *cluster_sums(page)]
    return "\n".join(lines)


def _width() -> int:
    import shutil

    return shutil.get_terminal_size((110, 24)).columns
