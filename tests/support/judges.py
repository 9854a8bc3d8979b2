"""What every judge needs: to be there or be skipped, a deadline, TLS that it trusts."""

import asyncio
import gc
import shutil
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme

from trio_feed.settings import SimulatorSettings
from trio_feed.simulator import Market, binance_exchange, serve

from .box import RunningBox, real_now_ms, running_box

WITHIN_S = 19
JS = Path(__file__).parent.parent / "live" / "js"
TRADES_PER_MINUTE = 600


def judge(package: str) -> Any:
    """The package, or a visible skip."""
    reason = f"the judge {package} is not installed: scripts/judges"
    return pytest.importorskip(package, reason=reason, exc_type=ImportError)


def node_judge(package: str) -> str:
    """The program that runs the npm package, or a visible skip."""
    node = shutil.which("node")
    if node is None:
        pytest.skip(f"the judge {package} (npm) wants node, which is not installed")
    if not (JS / "node_modules" / package).exists():
        pytest.skip(f"the judge {package} (npm) is not installed: scripts/judges")
    return node


@contextmanager
def binance_box(
    venue: str, *, ahead_ms: float = 0, tls: ssl.SSLContext | None = None
) -> Iterator[RunningBox]:
    """A running box, its clock ``ahead_ms`` of ours."""
    market = Market(7, ("BTCUSDT", "ETHUSDT"), TRADES_PER_MINUTE)
    settings = SimulatorSettings(venue=venue)
    exchange = binance_exchange(market, lambda: real_now_ms() + ahead_ms, settings)
    with running_box(partial(serve, exchange), tls) as running:
        yield running


def run(main: Callable[[], Awaitable[None]]) -> None:
    """An asyncio judge, bounded; what it forgot to close is its own affair."""

    async def bounded() -> None:
        async with asyncio.timeout(WITHIN_S):
            await main()

    try:
        asyncio.run(bounded())
    finally:
        gc.collect()


def complete(model: Any) -> None:
    """Nothing in the model is missing, and nothing came that is not in it."""
    if isinstance(model, list):
        for item in model:
            complete(item)
    elif hasattr(model, "actual_instance"):
        complete(model.actual_instance)
    elif hasattr(model, "model_fields_set"):
        known = {found.alias for found in type(model).model_fields.values()}
        more = getattr(model, "additional_properties", {}).keys() - known  # it may hold both
        assert not more, f"{type(model).__name__} does not know {more}"
        for name in type(model).model_fields:
            value = getattr(model, name)
            assert value is not None, f"{type(model).__name__}.{name} is missing"
            complete(value)


@pytest.fixture
def trusted_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ssl.SSLContext:
    """A server's side of TLS; this process trusts it, and nobody else, for a test's time."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context
