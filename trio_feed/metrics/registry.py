"""Counters and gauges, and their Prometheus text.

One :class:`Metrics` per service, with a registry of its own, given to all who count; nothing is
global, so tests run side by side.
"""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.registry import Collector

from .. import __version__
from ..telemetry import Sample, Spans
from .collectors import (
    BROADCAST,
    FAILURES,
    LAG,
    LOST_LINES,
    SUCCESSES,
    UP,
    Broadcast,
    Durations,
    Figures,
    Instrument,
    Kept,
    Latency,
    Proxies,
    ProxySample,
    Read,
    Turns,
    WithoutTimesOfCreation,
)
from .unlocked import PlainCounter, PlainHistogram

_LATENCY_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """All of the service's instruments.  Names are ``trio_feed_<what>_<unit>``.

    ``instruments`` tells what they are, in the order of the page for people; ``spans`` is where
    what took time is told, nowhere unless somebody wants it."""

    def __init__(self) -> None:
        self.spans = Spans()
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.instruments: list[Instrument] = []
        self._counters: dict[str, Counter | PlainCounter] = {}
        self._histograms: dict[str, PlainHistogram] = {}

        def note(name: str, kind: str, text: str, labels: Sequence[str]) -> str:
            self.instruments.append(Instrument(f"trio_feed_{name}", kind, tuple(labels), text))
            return f"trio_feed_{name}"

        def counter(name: str, text: str, *labels: str) -> Counter:
            made = Counter(note(name, "counter", text, labels), text, labels, registry=registry)
            self._counters[f"trio_feed_{name}_total"] = made
            return made

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(note(name, "gauge", text, labels), text, labels, registry=registry)

        def plain_counter(name: str, text: str) -> PlainCounter:
            made = PlainCounter(note(name, "counter", text, ()), text)
            registry.register(made)
            self._counters[f"trio_feed_{name}_total"] = made
            return made

        def histogram(name: str, text: str, *labels: str) -> PlainHistogram:
            known = note(name, "histogram", text, labels)
            made = PlainHistogram(known, text, labels, _LATENCY_BUCKETS)
            registry.register(made)
            self._histograms[f"trio_feed_{name}"] = made
            return made

        gauge("build_info", "What runs here", "version", "python").labels(
            __version__, platform.python_version()
        ).set(1)
        self.messages = counter("messages", "Messages received from exchanges", "venue")
        self.failed = counter(
            "messages_failed", "Messages of exchanges that could not be read or used", "venue"
        )
        """Of ``messages``: their ratio is a venue's error rate."""
        self.bad_messages = counter(
            "bad_messages", "The same, and rows of REST answers that could not be read", "venue"
        )
        self.ignored_messages = counter(
            "ignored_messages", "Known messages that nothing here uses", "venue", "kind"
        )
        self.venue_crashes = counter(
            "venue_crashes", "Times that a bug made a venue begin anew", "venue"
        )
        self.demands = counter(
            "symbol_demands", "Symbols on demand, by what became of the asking", "venue", "result"
        )
        """Results: started, dropped (nobody wants it, or its place was needed), unlisted, no_room,
        too_many, starting (not there in time)."""
        self.demanded_symbols = gauge("demanded_symbols", "Symbols fed on demand", "venue")
        self.connections_lost = counter(
            "connections_lost", "Exchange connections lost or not opened", "venue", "reason"
        )
        self.streams_refused = counter("streams_refused", "Streams that a venue refused", "venue")
        self.reader_waits = counter("reader_waits", "Readers that found the buffer full", "venue")
        self.rest_calls = counter("rest_calls", "REST calls by result", "venue", "result")
        self.candles_closed = counter("candles_closed", "Closed candles sent on", "venue", "source")
        self.candle_holes = counter(
            "candle_holes", "Candles that the exchange itself does not have", "venue"
        )
        self.gap_seconds = counter(
            "gap_seconds", "Seconds of stream time that were missed, repaired later or not", "venue"
        )
        """Summed over streams: from the last message before a stream was lost or stalled to the
        first one after.  A quiet market and a rotation are no gaps."""
        self.repaired = counter(
            "repaired", "Candles and trades that were missed and fetched", "venue", "what"
        )
        self.probes = counter("probes", "REST calls that settle a doubt", "venue", "result")
        """Results: news (the stream is dead), told (it spoke meanwhile), quiet, failed."""
        self.stream_states = gauge("stream_state", "Streams by state", "venue", "state")
        self.coverage = gauge(
            "coverage_ratio", "Share of the closed candles due that went out", "venue", "window"
        )
        self.book_gaps = counter("book_gaps", "Gaps in order book sequences", "venue")
        self.reconciled = counter(
            "reconciled_minutes", "Minutes from trades against the exchange's", "venue", "result"
        )
        self.revisions = counter("candle_revisions", "Closed candles changed later", "venue")
        self.early_closes = counter(
            "early_closes", "1m candles closed before the exchange's word", "venue"
        )
        self.early_closes_revised = counter(
            "early_closes_revised", "Early closes that the exchange's word revised", "venue"
        )
        self.early_close_lead_ms = counter(
            "early_close_lead_ms", "Milliseconds by which candles closed earlier, summed", "venue"
        )
        self.connections = gauge("connections", "Open exchange connections", "venue")
        self.clock_offset = gauge(
            "clock_offset_seconds", "How far our calendar is ahead of an exchange's", "venue"
        )
        self.clock_steps = counter(
            "clock_steps", "Jumps of our calendar, and pauses of the process", "direction"
        )
        self.held_series = gauge("held_series", "Series waiting for a hole to be filled", "venue")
        self.store_pending = gauge("store_pending_rows", "Closed candles not yet on disk")
        self.store_errors = counter("store_errors", "Batches that the disk did not take")
        self.store_refused = counter("store_refused_rows", "Candles that no store can hold")
        self.store_fenced = counter(
            "store_fenced_rows", "Candles that were not written: another node has their shard"
        )
        self.store_pruned = counter("store_pruned_rows", "Candles deleted as [store] keep says")
        self.store_rows = gauge("store_rows", "Closed candles in the store", "interval")
        self.store_bytes = gauge(
            "store_bytes", "Size of the store: file, its log (wal), free inside of it", "part"
        )
        self.clients = gauge("clients", "Connected push clients")
        self.subscriptions = gauge("subscriptions", "Subscriptions of push clients")
        self.pushed = plain_counter("pushed_messages", "Messages handed to push clients")
        self.push_failed = counter(
            "push_failed_messages",
            "Messages for push clients that were never written: the client was dropped or left",
        )
        self.slow_clients = counter("slow_clients", "Push clients dropped for not reading")
        self.refused = counter("refused_connections", "Push clients turned away", "reason")
        self.crashes = counter("client_crashes", "Bugs that a push client ran into")
        self.push_bytes = counter("push_bytes", "Bytes written to push clients")
        self.queued_bytes = gauge("push_queued_bytes", "Bytes waiting for all push clients")
        self.most_queued_bytes = gauge(
            "push_queued_bytes_max", "Bytes waiting for the push client that is owed most"
        )
        self.waiting_bytes = gauge(
            "waiting_bytes", "Bytes waiting for all clients, over HTTP and WebSocket"
        )
        self.conflated = plain_counter(
            "conflated_messages", "Updates that a newer one replaced while they waited"
        )
        self.resumes = counter("resumes", "Subscriptions with since: ring, store, fresh", "result")
        self.requests = counter("requests", "Requests of push clients", "kind")
        self.request_errors = counter("request_errors", "Error replies to push clients", "code")
        self.orders_refused = counter(
            "orders_refused", "Requests for rows that were too many: budget, queue", "reason"
        )
        self.worker_ends = counter(
            "worker_ends", "Workers that ended or were ended without being asked to", "reason"
        )
        """Reasons: ended, silent (gave no sign of life), slow (took nothing off its socket)."""
        self.workers = gauge("workers", "Workers that serve clients; 0: the one process does")
        self.worker_memory = gauge("worker_memory_bytes", "Memory of a worker", "worker")
        self.worker_cpu = gauge(
            "worker_cpu_seconds", "Processor time of a worker since it began", "worker"
        )
        self.worker_clients = gauge("worker_clients", "Push clients of a worker", "worker")
        self.push_latency = histogram(
            "push_latency_seconds",
            "From the bytes of the exchange to its message parsed, published, and written to the"
            " clients that took it at once; queued, of the others: from then to written, sampled",
            "stage",
        )
        registry.register(Broadcast(self.broadcast_latency))
        self.instruments.append(BROADCAST)
        self.parsed, self.published, self.written, self.queued = (
            self.push_latency.of(stage) for stage in ("parsed", "published", "written", "queued")
        )

        self.auths = counter("auths", "Tokens of clients by result", "result")
        self.settlement_events = counter(
            "settlement_events", "Reported events by what became of them", "result"
        )
        self.private_messages = counter("private_messages", "Private events handed to clients")
        self.private_resumes = counter("private_resumes", "Private resumes by result", "result")
        self.journal_errors = counter("journal_errors", "Batches of events that failed")
        self.journal_commit = histogram(
            "journal_commit_seconds", "One batch of events to the disk and back"
        ).of()
        self.private_latency = histogram(
            "private_latency_seconds", "Request with an event complete to event handed to clients"
        ).of()

    def absorb(self, grown: Iterable[tuple[str, Mapping[str, str], float]]) -> None:
        """Add what the same counters and histograms of another process have grown by: name of the
        sample, labels, amount.  What is not known here is left out."""
        buckets: dict[tuple[str, tuple[str, ...]], dict[float, float]] = {}
        for name, labels, amount in grown:
            counter, (metric, _, part) = self._counters.get(name), name.rpartition("_")
            own = tuple(text for key, text in labels.items() if key != "le")
            if isinstance(counter, Counter):
                (counter.labels(**labels) if labels else counter).inc(amount)
            elif counter is not None:
                counter.inc(amount)
            elif metric in self._histograms and part == "sum":
                self._histograms[metric].of(*own).sum_s += amount
            elif metric in self._histograms and part == "bucket":
                buckets.setdefault((metric, own), {})[float(labels["le"])] = amount
        for (metric, own), found in buckets.items():
            self._histograms[metric].of(*own).absorb(found)

    def broadcast_latency(self) -> Latency:
        """What lies between two stages of the push latency, which are measured together."""
        took_s = max(0.0, self.written.sum_s - self.published.sum_s)
        return Latency(sum(self.written.counts), took_s)

    def follow_lost_lines(self, read: Callable[[], float]) -> None:
        """``read`` is the number of log lines that were never written, from any thread."""
        self._follow(Read(LOST_LINES, read), LOST_LINES)

    def follow_proxies(self, read: Callable[[], Iterable[ProxySample]]) -> None:
        """``read`` gives every proxy that there is now."""
        self._follow(Proxies(read), UP, FAILURES, SUCCESSES)

    def follow_loop(self, read: Callable[[], Durations]) -> None:
        """``read`` gives the turns of the event loop since the start."""
        self._follow(Turns(read), LAG)

    def follow(self, instruments: Sequence[Instrument], read: Callable[[], Figures]) -> None:
        """``read`` gives the figures of ``instruments``."""
        self._follow(Kept(instruments, read), *instruments)

    def _follow(self, collector: Collector, *instruments: Instrument) -> None:
        self._registry.register(collector)
        self.instruments += instruments

    def expect(self, venue: str) -> None:
        """Show what is counted of a venue's messages before any came: a rate needs its zero."""
        for counter in (
            self.messages,
            self.failed,
            self.bad_messages,
            self.streams_refused,
            self.venue_crashes,
        ):
            counter.labels(venue)

    def samples(self) -> Iterator[Sample]:
        """Every number of the page; a histogram is counters, its buckets one by ``le``."""
        for metric in WithoutTimesOfCreation(self._registry).collect():
            kind = "gauge" if metric.type == "gauge" else "counter"
            for each in metric.samples:
                yield Sample(each.name, metric.documentation, kind, each.labels, each.value)

    def exposition(self) -> bytes:
        """The Prometheus text format, version 0.0.4."""
        page = CollectorRegistry()
        page.register(WithoutTimesOfCreation(self._registry))
        return generate_latest(page)


def total(instrument: Collector) -> float:
    """Over all labels."""
    return float(
        sum(
            sample.value
            for metric in instrument.collect()
            for sample in metric.samples
            if sample.name in (metric.name, f"{metric.name}_total")
        )
    )
