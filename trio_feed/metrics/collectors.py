"""Figures that are kept elsewhere and read when the metrics page is asked for."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf

from attrs import frozen
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

_PER_PROXY = ("venue", "number", "kind", "proxy")


@frozen
class Instrument:
    """What a metric is, for people: :attr:`Metrics.instruments`."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


UP = Instrument(
    "trio_feed_proxy_up", "gauge", _PER_PROXY, "1: the proxy may be used, 0: it cools down"
)
FAILURES = Instrument(
    "trio_feed_proxy_failures", "counter", _PER_PROXY, "Attempts through the proxy that failed"
)
SUCCESSES = Instrument(
    "trio_feed_proxy_successes", "counter", _PER_PROXY, "Attempts through the proxy that succeeded"
)
LAG = Instrument(
    "trio_feed_loop_lag_seconds",
    "histogram",
    (),
    "Turns of the event loop: so long whatever had become ready waited at most",
)
LOST_LINES = Instrument(
    "trio_feed_log_lines_lost", "counter", (), "Lines of the log that stdout did not take"
)
BROADCAST = Instrument(
    "trio_feed_broadcast_latency_seconds",
    "summary",
    (),
    "From a message published to written to all clients that took it at once; the average is"
    " sum / count",
)


@frozen(eq=False)
class Read(Collector):
    """A counter that is kept elsewhere, and read when the page is asked for."""

    instrument: Instrument
    read: Callable[[], float]

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(self.instrument.name, self.instrument.text, value=self.read())


@frozen
class ProxySample:
    """One proxy of a venue, the ``number``-th of its settings; ``address`` without credentials."""

    venue: str
    number: int
    kind: str
    address: str
    up: bool
    failures: int
    successes: int


@frozen(eq=False)
class Proxies(Collector):
    """Read when the page is asked for."""

    read: Callable[[], Iterable[ProxySample]]

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(UP.name, UP.text, labels=UP.labels)
        failures, successes = (
            CounterMetricFamily(each.name, each.text, labels=each.labels)
            for each in (FAILURES, SUCCESSES)
        )
        for each in self.read():
            names = (each.venue, str(each.number), each.kind, each.address)
            up.add_metric(names, float(each.up))
            failures.add_metric(names, each.failures)
            successes.add_metric(names, each.successes)
        yield from (up, failures, successes)


@frozen
class Durations:
    """How long something took, each time: how often at most each of ``bounds``, those of the bound
    before not among them, and at the end how often longer."""

    bounds: Sequence[float]
    counts: Sequence[int]
    sum_s: float


def _histogram(instrument: Instrument, found: Durations | None) -> HistogramMetricFamily:
    if found is None:
        return HistogramMetricFamily(instrument.name, instrument.text)
    so_far, buckets = 0, []
    for bound, count in zip((*found.bounds, inf), found.counts, strict=True):
        so_far += count
        buckets.append(("+Inf" if bound == inf else str(bound), float(so_far)))
    return HistogramMetricFamily(
        instrument.name, instrument.text, buckets=buckets, sum_value=found.sum_s
    )


@frozen(eq=False)
class Turns(Collector):
    read: Callable[[], Durations]

    def collect(self) -> Iterator[Metric]:
        yield _histogram(LAG, self.read())


Figures = Mapping[Instrument, Mapping[tuple[str, ...], float] | Durations]
"""By instrument its values by their labels; of a histogram, which has none, all of it."""


@frozen(eq=False)
class Kept(Collector):
    """Instruments whose figures are kept elsewhere; one without any is on the page by its name."""

    instruments: Sequence[Instrument]
    read: Callable[[], Figures]

    def collect(self) -> Iterator[Metric]:
        figures = self.read()
        for each in self.instruments:
            found = figures.get(each, {})
            if isinstance(found, Durations) or each.kind == "histogram":
                yield _histogram(each, found if isinstance(found, Durations) else None)
                continue
            make = GaugeMetricFamily if each.kind == "gauge" else CounterMetricFamily
            family = make(each.name, each.text, labels=each.labels)
            for labels, value in found.items():
                family.add_metric(labels, value)
            yield family


@frozen
class Latency:
    """Of ``count`` messages together."""

    count: int
    sum_s: float


@frozen(eq=False)
class Broadcast(Collector):
    read: Callable[[], Latency]

    def collect(self) -> Iterator[Metric]:
        found = self.read()
        yield SummaryMetricFamily(BROADCAST.name, BROADCAST.text, found.count, found.sum_s)


@frozen(eq=False)
class WithoutTimesOfCreation(Collector):
    """prometheus_client says of each counter and histogram when it was made, which doubles the
    page for nothing; its own switch is global."""

    registry: CollectorRegistry

    def collect(self) -> Iterator[Metric]:
        for metric in self.registry.collect():
            kept = [each for each in metric.samples if not each.name.endswith("_created")]
            if len(kept) != len(metric.samples):
                samples, metric = kept, Metric(metric.name, metric.documentation, metric.type)
                metric.samples = samples
            yield metric
