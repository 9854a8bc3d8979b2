"""OpenTelemetry: which spans there are, that nothing waits for them, and that it is off by default.

The SDK's own in-memory exporters are the judges; without the SDK (dev group) those tests are
skipped.
"""

import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha256
from typing import Any

import pytest
import trio
from support.memory import MemoryNetwork
from support.stack import settings_for_tests, virtual_now_ms

from trio_feed import service, telemetry
from trio_feed.environment import Environment
from trio_feed.errors import SettingsError
from trio_feed.metrics import Metrics
from trio_feed.settings import OtelSettings, SimulatorSettings, load
from trio_feed.simulator.exchanges import serve_exchange
from trio_feed.telemetry import Exporters, Spans, is_wanted, open_telemetry

KEY = "tfp_test"


@asynccontextmanager
async def traced(exporters: Exporters, *assignments: str) -> AsyncIterator[Any]:
    """The whole service; yields (exchange, network, ready)."""
    network = MemoryNetwork()
    environment = Environment(network.dial, network.listen, virtual_now_ms, random.Random(1))
    box = SimulatorSettings(kline_push_ms=20_000, trades_per_minute=6, symbols=("BTCUSDT",))
    digest = sha256(KEY.encode()).hexdigest()
    settings = settings_for_tests(
        *assignments, f"settlement.publishers=[{{name='engine', sha256='{digest}'}}]",
        "otel.metrics_interval_s=60",
    )  # fmt: skip
    with trio.fail_after(20_000):
        async with trio.open_nursery() as nursery:
            listeners = await network.listen("exchange", 80)
            exchange = await nursery.start(
                partial(serve_exchange, box, listeners=listeners, now_ms=virtual_now_ms)
            )
            run = partial(service.run, settings, environment, exporters=exporters)
            yield exchange, network, await nursery.start(run)
            nursery.cancel_scope.cancel()


async def report(ready: service.Ready, body: bytes, key: str = KEY) -> None:
    async def chunks() -> Any:
        yield body

    await ready.app.settlement.answer(f"Bearer {key}", None, chunks())


async def test_a_span_for_each_thing_that_takes_time(autojump_clock: trio.abc.Clock) -> None:
    in_memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = in_memory.InMemorySpanExporter()
    async with traced(Exporters(exporter), ".connection.max_age_s=600") as (exchange, network, on):
        await trio.sleep(60)
        network.down.add(("exchange", 80))
        for connection in list(exchange.connections):
            connection.abort()
        await trio.sleep(150)
        network.down.clear()
        await report(on, b'[{"event_id":"x","type":"nothing","data":{}}]')
        await report(on, b"no JSON")
        await trio.sleep(900)
    waited = 0
    while not (spans := exporter.get_finished_spans()) and waited < 500:
        time.sleep(0.01)  # the SDK's own thread, on the machine's clock
        waited += 1
    found: dict[str, list[Any]] = {}
    for span in spans:
        found.setdefault(span.name, []).append(span)
    assert set(found) == {"rest.call", "reconnect", "repair", "rotation", "settlement.batch"}

    (repair,) = found["repair"]
    assert repair.attributes["stream"] == "binance_usdm:BTCUSDT:1m"
    assert repair.attributes["state"] == "repaired"
    assert repair.attributes["last_ms"] - repair.attributes["first_ms"] >= 60_000
    (reconnect,) = found["reconnect"]
    assert 140 < (reconnect.end_time - reconnect.start_time) / 1e9 < 200
    assert reconnect.attributes["venue"] == "binance_usdm"
    assert found["rotation"][0].attributes["why"] == "age"
    calls = {span.attributes["what"] for span in found["rest.call"]}
    assert {"exchange/fapi/v1/exchangeInfo", "exchange/fapi/v1/continuousKlines"} <= calls
    failed = [s for s in found["rest.call"] if not s.status.is_ok and s.status.description]
    assert {span.status.description for span in failed} == {"HostUnreachable"}
    taken, refused = found["settlement.batch"]
    assert taken.attributes["publisher"] == "engine"
    assert taken.attributes["events.rejected"] == 1
    assert refused.status.description == "BadBody"
    for span in spans:
        assert span.resource.attributes["service.name"] == "trio_feed"
        assert span.end_time >= span.start_time
        assert KEY not in json.dumps(dict(span.attributes))


async def test_metrics_are_what_the_page_says(autojump_clock: trio.abc.Clock) -> None:
    pytest.importorskip("opentelemetry.sdk.metrics")
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult

    sent: list[Any] = []

    class Kept(MetricExporter):
        def export(self, metrics_data: Any, timeout_millis: float = 0, **_: Any) -> Any:
            sent.append(metrics_data)
            return MetricExportResult.SUCCESS

        def force_flush(self, timeout_millis: float = 0) -> bool:
            return True

        def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
            pass

    metrics, spans = Metrics(), []
    metrics.messages.labels("okx").inc(5)
    metrics.clients.set(3)
    metrics.journal_commit.observe(0.003)
    settings = OtelSettings(metrics_interval_s=60)
    async with open_telemetry(
        settings, None, now_ms=virtual_now_ms, samples=metrics.samples,
        exporters=Exporters(metrics=Kept()),
    ) as made:  # fmt: skip
        spans.append(made)
        await trio.sleep(90)
        while not sent:  # noqa: ASYNC110 - another thread
            await trio.sleep(0.1)
    rows = {
        (metric.name, tuple(sorted(point.attributes.items()))): point.value
        for metric in sent[0].resource_metrics[0].scope_metrics[0].metrics
        for point in metric.data.data_points
    }
    assert rows["trio_feed_messages_total", (("venue", "okx"),)] == 5
    assert rows["trio_feed_clients", ()] == 3
    assert rows["trio_feed_journal_commit_seconds_count", ()] == 1
    assert rows["trio_feed_journal_commit_seconds_bucket", (("le", "0.005"),)] == 1


async def test_it_is_off_unless_somebody_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_is_installed", lambda: True)
    variable = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    assert not is_wanted(OtelSettings(), {})
    assert not is_wanted(OtelSettings(), None)
    assert is_wanted(OtelSettings(enabled=True), {})
    assert is_wanted(OtelSettings(), variable)
    assert not is_wanted(OtelSettings(), variable | {"OTEL_SDK_DISABLED": "true"})
    async with open_telemetry(
        OtelSettings(), {}, now_ms=virtual_now_ms, samples=Metrics().samples
    ) as spans:
        assert type(spans) is Spans


def test_what_is_missing_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_is_installed", lambda: False)
    with pytest.raises(SettingsError, match=r'otel.enabled: .* pip install "\.\[otel\]"'):
        is_wanted(OtelSettings(enabled=True), {})
    assert not is_wanted(OtelSettings(), {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"})
    with pytest.raises(SettingsError, match=r"otel.endpoint: is not an http"):
        load(assignments=["otel.endpoint=127.0.0.1:4318"])
