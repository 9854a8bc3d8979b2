"""The engine of the settings, as a context manager: looked at before anything trusts it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TypeVar

from ...errors import StartError
from ...settings import EngineSettings
from .base import Engine, EngineFault

MakeEngine = Callable[[EngineSettings, bytes], AbstractAsyncContextManager[Engine]]
"""As :func:`make_engine`."""
DATABASE = b", database "
"""Begins the part of what nodes agree on that names their database; who does not know it yet leaves
it out, and then it is not compared."""
OpenWay = Callable[[EngineSettings], AbstractAsyncContextManager[Engine]]
"""As :func:`open_engine`."""
_TRIES = 3
_T = TypeVar("_T")
NO_LIBRARY = 'Valkey needs a library: pip install ".[cluster]" in the checkout'


@asynccontextmanager
async def make_engine(settings: EngineSettings, cluster: bytes) -> AsyncIterator[Engine]:
    """A node's way to its engine; its connections end with the context.

    ``cluster``: what all nodes have to agree on, as text for people too.  Nothing is made: who has
    opened the database joins.  Raises StartError when the engine cannot be reached, refuses us, is
    another cluster's, or lacks something.
    """
    async with open_engine(settings) as engine:
        try:
            if why := await patiently(lambda: why_unfit(engine)):
                raise StartError(f"engine.urls: {why}")
            first = await patiently(engine.cluster)
            if first is not None and (why := why_of_another(settings.prefix, cluster, first)):
                raise StartError(f"engine.prefix: {why}")
        except EngineFault as fault:
            raise StartError(f"engine.urls: {fault}") from None
        yield engine


async def patiently(ask: Callable[[], Awaitable[_T]]) -> _T:
    """What is asked at a start, some times: where the machine is busy an answer comes too late for
    a process that has just loaded itself, and nobody tries for it again.  Raises EngineFault."""
    for _ in range(_TRIES - 1):
        with suppress(EngineFault):
            return await ask()
    return await ask()


@asynccontextmanager
async def open_engine(settings: EngineSettings) -> AsyncIterator[Engine]:
    """A way to the engine that nobody has looked at.  Raises StartError without the library, or
    where certificates cannot be read."""
    try:
        from .valkey import open_valkey
    except ImportError:
        raise StartError(f"engine.kind: {NO_LIBRARY}") from None
    async with open_valkey(settings) as engine:
        yield engine


async def look_at_engine(engine: Engine, prefix: str, cluster: bytes) -> tuple[str, str, str]:
    """What a start would find there, without making anything: which nodes there are, else what is
    wrong and what to do."""
    try:
        wrong = await why_unfit(engine)
        first = await engine.cluster()
        if not wrong and first is not None:
            wrong = why_of_another(prefix, cluster, first)
        nodes = sorted(await engine.nodes())
    except EngineFault as fault:
        wrong, nodes = str(fault), []
    problem, _, advice = wrong.partition("; ")
    there = f"nodes there: {' '.join(nodes)}" if nodes else "no node is there yet"
    return ("" if wrong else there), problem, advice


async def why_unfit(engine: Engine) -> str:
    """Raises EngineFault."""
    return "; ".join(await engine.problems())


def why_of_another(prefix: str, cluster: bytes, first: bytes) -> str:
    """``first``: what its first node said of the cluster."""
    (their_form, _, their_database), (our_form, _, our_database) = (
        each.partition(DATABASE) for each in (first, cluster)
    )
    if their_form == our_form and (
        their_database == our_database or not their_database or not our_database
    ):
        return ""
    theirs, ours = (each.decode(errors="replace") for each in (first, cluster))
    if their_form == our_form:
        return (
            f'"{prefix}" is of a cluster with another database there ({theirs}, here {ours});'
            " give this node the same store.url, or another prefix"
        )
    return (
        f'"{prefix}" is of another cluster there ({theirs}, here {ours});'
        " give this one another prefix"
    )
