"""The page for Prometheus, in the whole service under virtual time."""

from collections.abc import Iterator

import trio
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from support.memory import MemoryNetwork
from support.stack import Stack, open_stack, settings_for_tests
from trio.testing import MockClock

from trio_feed import __version__
from trio_feed.clocks import LoopLag
from trio_feed.metrics import Metrics
from trio_feed.metrics.unlocked import PlainCounter, PlainHistogram


def samples(metrics: Metrics) -> Iterator[Sample]:
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        yield from family.samples


def of(stack: Stack, name: str, **labels: str) -> list[float]:
    metrics = stack.ready.app.context.metrics
    return [
        s.value for s in samples(metrics) if s.name == name and labels.items() <= s.labels.items()
    ]


def test_the_page_has_the_process_and_the_build_and_no_times_of_creation() -> None:
    metrics = Metrics()
    metrics.rest_calls.labels("okx", "ok").inc()
    metrics.journal_commit.observe(0.1)
    found = list(samples(metrics))
    names = {sample.name for sample in found}
    assert {
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_cpu_seconds_total",
    } <= names
    assert [s.labels["version"] for s in found if s.name == "trio_feed_build_info"] == [__version__]
    assert {"trio_feed_rest_calls_total", "trio_feed_journal_commit_seconds_count"} <= names
    assert [name for name in names if name.endswith("_created")] == []


def test_turns_of_the_loop_are_counted_by_length() -> None:
    turns = iter([10.0, 10.0004, 20.0, 20.03, 30.0, 39.0])
    lag, metrics = LoopLag(lambda: next(turns)), Metrics()
    metrics.follow_loop(lag.turns)
    for _ in range(3):
        lag.after_io_wait(0.0)
        lag.before_io_wait(0.0)
    found = {
        s.labels.get("le", s.name): s.value
        for s in samples(metrics)
        if s.name.startswith("trio_feed_loop_lag")
    }
    assert [found[le] for le in ("0.001", "0.025", "0.05", "5.0", "+Inf")] == [1, 1, 2, 2, 3]
    assert round(found["trio_feed_loop_lag_seconds_sum"], 4) == 9.0304


async def test_the_loop_is_measured_while_the_service_runs(autojump_clock: MockClock) -> None:
    async with open_stack(settings_for_tests()) as stack:
        await trio.sleep(5)
        (before,) = of(stack, "trio_feed_loop_lag_seconds_count")
        await trio.sleep(60)
        assert of(stack, "trio_feed_loop_lag_seconds_count")[0] > before > 0


async def test_proxies_have_their_states(autojump_clock: MockClock) -> None:
    """One of them leads nowhere."""
    proxies = (
        "[{enabled=true, address='nowhere:1', username='me', password='hunter2'},"
        " {enabled=true, address='proxy:8080'}]"
    )
    settings = settings_for_tests(f".connection.proxies={proxies}")
    network = MemoryNetwork()
    async with open_stack(settings, network=network) as stack:
        await trio.sleep(30)
        up = {
            (s.labels["venue"], s.labels["number"], s.labels["kind"], s.labels["proxy"]): s.value
            for s in samples(stack.ready.app.context.metrics)
            if s.name == "trio_feed_proxy_up"
        }
        assert up[("binance_usdm", "1", "http", "nowhere:1")] == 0
        assert ("binance_usdm", "2", "http", "proxy:8080") in up
        assert of(stack, "trio_feed_proxy_failures_total", number="1")[0] > 0
        assert of(stack, "trio_feed_proxy_successes_total", number="1") == [0]
        assert b"hunter2" not in stack.ready.app.context.metrics.exposition()


async def test_a_healthy_start_has_no_differences(autojump_clock: MockClock) -> None:
    """500 minutes of history have no minutes from trades beside them, and need none."""
    settings = settings_for_tests(
        ".history_bars=500", ".trade_intervals=['1s']", ".channels=['kline','trade']"
    )
    async with open_stack(settings, trades_per_minute=60, push_ms=1000) as stack:
        await trio.sleep(900)
        assert of(stack, "trio_feed_reconciled_minutes_total", result="equal")[0] >= 10
        assert of(stack, "trio_feed_reconciled_minutes_total", result="one_sided") in ([], [0])
        assert of(stack, "trio_feed_reconciled_minutes_total", result="different") in ([], [0])


def test_the_average_broadcast_latency_is_what_lies_between_published_and_written() -> None:
    metrics = Metrics()
    for published, written in ((0.010, 0.013), (0.020, 0.021)):
        metrics.push_latency.of("published").observe(published)
        metrics.push_latency.of("written").observe(written)
    found = {s.name: s.value for s in samples(metrics)}
    assert found["trio_feed_broadcast_latency_seconds_count"] == 2
    assert round(found["trio_feed_broadcast_latency_seconds_sum"], 6) == 0.004


def test_what_is_counted_without_a_lock_reads_like_what_is_counted_with_one() -> None:
    bounds = (0.005, 0.1, 1)
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counters = [
        PlainCounter("a", "text"),
        Counter("a", "text", registry=theirs),
    ]
    stages = PlainHistogram("b", "text", ("stage",), bounds)
    alone = PlainHistogram("c", "text", (), bounds)
    for each in (counters[0], stages, alone):
        ours.register(each)
    histograms = [
        (stages.of("x"), alone.of()),
        (
            Histogram("b", "text", ["stage"], buckets=bounds, registry=theirs).labels("x"),
            Histogram("c", "text", buckets=bounds, registry=theirs),
        ),
    ]
    for counter, both in zip(counters, histograms, strict=True):
        counter.inc()
        counter.inc(2)
        for seconds in (0.0, 0.005, 0.0051, 1.0, 7.5):
            for each in both:
                each.observe(seconds)
    lines = [
        [line for line in generate_latest(of).decode().splitlines() if "_created" not in line]
        for of in (ours, theirs)
    ]
    assert lines[0] == lines[1]


async def test_a_venues_error_rate_has_its_zero_from_the_start(autojump_clock: MockClock) -> None:
    async with open_stack(settings_for_tests()) as stack:
        venue = {"venue": "binance_usdm"}
        assert of(stack, "trio_feed_messages_failed_total", **venue) == [0]
        assert of(stack, "trio_feed_messages_total", **venue) != []
