"""The engine of the settings, as a context manager: looked at before anything trusts it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from ...errors import StartError
from ...settings import EngineSettings
from .base import Engine, EngineFault

MakeEngine = Callable[[EngineSettings, bytes], AbstractAsyncContextManager[Engine]]
"""As :func:`make_engine`."""
NO_LIBRARY = 'Valkey needs a library: pip install ".[cluster]" in the checkout'


@asynccontextmanager
async def make_engine(settings: EngineSettings, cluster: bytes) -> AsyncIterator[Engine]:
    """A node's way to its engine; its connections end with the context.

    ``cluster``: what all nodes have to agree on, as text for people too.  Raises StartError when
    the engine cannot be reached, refuses us, is another cluster's, or lacks something.
    """
    try:
        from .valkey import open_valkey
    except ImportError:
        raise StartError(f"engine.kind: {NO_LIBRARY}") from None
    async with open_valkey(settings) as engine:
        try:
            await _look_at(engine, settings, cluster)
        except EngineFault as fault:
            raise StartError(f"engine.urls: {fault}") from None
        yield engine


async def _look_at(engine: Engine, settings: EngineSettings, cluster: bytes) -> None:
    """Raises EngineFault, StartError."""
    if problems := await engine.problems():
        raise StartError(f"engine.urls: {'; '.join(problems)}")
    if (first := await engine.join(cluster)) != cluster:
        theirs, ours = (each.decode(errors="replace") for each in (first, cluster))
        raise StartError(
            f'engine.prefix: "{settings.prefix}" is of another cluster there'
            f" ({theirs}, here {ours}); give this one another prefix"
        )
