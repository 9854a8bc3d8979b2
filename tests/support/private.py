"""Users with private events, short to write."""

from typing import Any

from trio_feed.metrics import Metrics
from trio_feed.push.private.auth import USER_KEY, Authenticator, new_key
from trio_feed.push.private.events import PrivateFeed
from trio_feed.push.private.session import PrivateAccess
from trio_feed.settings import ApiKeySettings, AuthSettings, SettlementSettings
from trio_feed.store import Journal
from trio_feed.store.journal_memory import MemoryJournalBackend

T_MS = 1_734_533_790_000


def no_access() -> PrivateAccess:
    """Nobody is let in."""
    return access_for(make_journal(MemoryJournalBackend(1)), AuthSettings())


def make_journal(backend: Any, **more: Any) -> Journal:
    """On a backend that does not block; the caller runs it."""
    return Journal(
        backend,
        SettlementSettings(**more),
        in_threads=False,
        now_ms=lambda: float(T_MS),
        metrics=Metrics(),
    )


def access_for(journal: Journal, settings: AuthSettings) -> PrivateAccess:
    metrics = Metrics()
    feed = PrivateFeed(journal, lambda: float(T_MS), metrics)
    return PrivateAccess(Authenticator(settings), feed, settings, lambda: float(T_MS), metrics)


def keys_for(*users: int) -> tuple[dict[int, str], AuthSettings]:
    """A key per user, and the settings that know them."""
    pairs = {user: new_key(USER_KEY) for user in users}
    rows = [ApiKeySettings(f"user {user}", user, digest) for user, (_, digest) in pairs.items()]
    return {user: key for user, (key, _) in pairs.items()}, AuthSettings(api_keys=tuple(rows))


def order(order_id: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "order_id": order_id, "symbol": "BTC_USDT", "status": "FILLED", "filled_qty": "0.001",
        "avg_price": "85000.00", "updated_at": T_MS, **more,
    }  # fmt: skip


def balance(**more: Any) -> dict[str, Any]:
    return {
        "asset": "BTC", "avail": "1.501000", "frozen": "0.000000", "change": "+0.001000",
        "reason": "trade_settled", **more,
    }  # fmt: skip


def trade(taker: int = 1, maker: int = 2, **more: Any) -> dict[str, Any]:
    return {
        "trade_id": 5001, "symbol": "BTC_USDT", "price": "85000.00", "qty": "0.001",
        "traded_at": T_MS,
        "taker": {"user_id": taker, "order_id": 1001, "side": "BUY", "fee": "0.00001"},
        "maker": {"user_id": maker, "order_id": 1002, "side": "SELL", "fee": "0.00000"}, **more,
    }  # fmt: skip


def event(event_id: str, kind: str, data: Any, user_id: int | None = None) -> dict[str, Any]:
    whose = {} if user_id is None else {"user_id": user_id}
    return {"event_id": event_id, "type": kind, **whose, "data": data}
