"""The line of the log that says once a minute how all is going: ``service.minute``."""

from collections.abc import Sequence
from typing import Any, Never

import structlog
import trio
from attrs import frozen

from .feeds import Feeds
from .ingest.venue import VenueFeed
from .metrics import Metrics, total
from .push.app import PushApp

log = structlog.get_logger()

PERIOD_S = 60.0
_LIVE = ("live", "quiet")


@frozen
class Numbers:
    """How the service stands.  ``messages`` to ``broadcast_s`` count from the start: messages of
    exchanges and those of them that were of no use, candles and trades fetched, messages for
    clients and those never written, messages published and the seconds until they were written."""

    messages: float
    failed: float
    repaired: float
    pushed: float
    push_failed: float
    broadcasts: float
    broadcast_s: float
    live: int
    streams: int
    clients: int
    subscriptions: int
    proxies_up: int
    proxies: int


def numbers(feeds: Sequence[VenueFeed], app: PushApp) -> Numbers:
    """How the service stands now."""
    metrics: Metrics = app.context.metrics
    states = [stream["state"] for feed in feeds for stream in feed.driver.streams().values()]
    proxies = [proxy for feed in feeds for proxy in feed.proxies()]
    broadcast = metrics.broadcast_latency()
    return Numbers(
        messages=total(metrics.messages),
        failed=total(metrics.failed),
        repaired=total(metrics.repaired),
        pushed=total(metrics.pushed),
        push_failed=total(metrics.push_failed),
        broadcasts=broadcast.count,
        broadcast_s=broadcast.sum_s,
        live=sum(str(state) in _LIVE for state in states),
        streams=len(states),
        clients=int(total(metrics.clients)),
        subscriptions=int(total(metrics.subscriptions)),
        proxies_up=sum(proxy.up for proxy in proxies),
        proxies=len(proxies),
    )


def minute(before: Numbers, now: Numbers, span_s: float) -> dict[str, Any]:
    """The fields of the event, for the ``span_s`` between the two."""
    span_s = max(span_s, 0.001)
    broadcasts = now.broadcasts - before.broadcasts
    average_s = (now.broadcast_s - before.broadcast_s) / broadcasts if broadcasts else 0.0
    return {
        "messages_per_s": round((now.messages - before.messages) / span_s, 1),
        "messages_failed": int(now.failed - before.failed),
        "streams_live": now.live,
        "streams": now.streams,
        "repaired": int(now.repaired - before.repaired),
        "clients": now.clients,
        "subscriptions": now.subscriptions,
        "pushed_per_s": round((now.pushed - before.pushed) / span_s, 1),
        "push_failed": int(now.push_failed - before.push_failed),
        "broadcast_avg_ms": round(average_s * 1000, 3),
        "proxies_up": now.proxies_up,
        "proxies": now.proxies,
    }


async def run_summary(feeds: Feeds, app: PushApp) -> Never:
    """Log it once a minute, until cancelled."""
    before, at_s = numbers(feeds.running, app), trio.current_time()
    while True:
        await trio.sleep(PERIOD_S)
        now, now_s = numbers(feeds.running, app), trio.current_time()
        log.info("service.minute", **minute(before, now, now_s - at_s))
        before, at_s = now, now_s
