"""``check --connect``: the databases and the engine, which processes share."""

from collections.abc import Callable

import trio

from ..bus.engine.opening import OpenWay, look_at_engine
from ..cluster import cluster_of
from ..settings import DatabaseUrl, Settings
from ..store import look_at_database
from .probe import Step


async def probe_databases(settings: Settings, say: Callable[[Step], None]) -> bool:
    """A step for each that the settings name; whether a start would find them as it wants them.
    Raises StartError without the library."""
    parts: dict[DatabaseUrl, list[str]] = {}
    for name, url in (("store", settings.store.url), ("journal", settings.journal_url)):
        if url:
            parts.setdefault(url, []).append(name)
    good = True
    for url, names in parts.items():
        began = trio.current_time()
        reads = "ingest" not in settings.node.roles
        found, problem, advice = await look_at_database(url, names, reads=reads)
        detail = f"{url.shown}: {found or problem}"
        say(Step("", "", "database", not problem, _ms_since(began), detail, advice))
        good = good and not problem
    return good


async def probe_engine(
    settings: Settings, say: Callable[[Step], None], open_engine: OpenWay
) -> bool:
    """A step, where the settings name one; whether a start would find it as it wants it.  Raises
    StartError without the library, or where certificates cannot be read."""
    if settings.engine.kind == "memory":
        return True
    began = trio.current_time()
    async with open_engine(settings.engine) as engine:
        found, problem, advice = await look_at_engine(
            engine, settings.engine.prefix, cluster_of(settings)
        )
    detail = f"{settings.engine.urls[0]}: {found}" if found else problem
    say(Step("", "", "engine", not problem, _ms_since(began), detail, advice))
    return not problem


def _ms_since(began: float) -> float:
    return round((trio.current_time() - began) * 1000, 1)
