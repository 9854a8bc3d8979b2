"""A counter and a histogram for what is counted with each message.

prometheus_client takes a lock for each increment and walks through the buckets of a histogram: the
three figures of a message were a twentieth of what it costs to give it to sixty clients.  These are
plain numbers, counted in the event loop's thread only, and read when the page is asked for.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from math import inf
from time import perf_counter

from attrs import define, field, frozen
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector


@define(eq=False)
class PlainCounter(Collector):
    """A counter without labels."""

    name: str
    text: str
    value: float = 0

    def inc(self, amount: float = 1) -> None:
        self.value += amount

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(self.name, self.text, value=self.value)


@define(eq=False)
class Observations:
    """How often at most each of ``bounds``, those of the bound before not among them; the last is
    infinite."""

    bounds: Sequence[float]
    counts: list[int] = field(init=False)
    sum_s: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.counts = [0] * len(self.bounds)

    def observe(self, seconds: float) -> None:
        """It took so long once."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum_s += seconds

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Observe how long the block takes, also where it fails."""
        began = perf_counter()
        try:
            yield
        finally:
            self.observe(perf_counter() - began)

    def absorb(self, cumulative: Mapping[float, float]) -> None:
        """Add, for each bound, so many that were at most as long; one that is not there is as the
        bound before."""
        below = 0
        for place, bound in enumerate(self.bounds):
            so_far = int(cumulative.get(bound, below))
            self.counts[place] += so_far - below
            below = so_far


@frozen(eq=False)
class PlainHistogram(Collector):
    """By the values of its label, if it has ``labels``.  ``bounds`` without the infinite one."""

    name: str
    text: str
    labels: Sequence[str]
    bounds: Sequence[float]
    found: dict[tuple[str, ...], Observations] = field(factory=dict)

    def of(self, *labels: str) -> Observations:
        """Where those with these labels are counted; on the page from now on."""
        if labels not in self.found:
            self.found[labels] = Observations((*self.bounds, inf))
        return self.found[labels]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self.name, self.text, labels=self.labels)
        for labels, each in self.found.items():
            names = [*map(str, map(float, self.bounds)), "+Inf"]
            buckets = list(zip(names, map(float, accumulate(each.counts)), strict=True))
            family.add_metric(labels, buckets, each.sum_s)
        yield family
