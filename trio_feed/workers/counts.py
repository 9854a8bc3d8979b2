"""What a worker's counters have grown by, for the one page of all.  Pure."""

from collections.abc import Iterable, Sequence

from ..telemetry import Sample

Increment = tuple[str, dict[str, str], float]
"""Name of the sample, its labels, by how much it grew."""
_OF_THE_PROCESS = ("process_", "python_", "trio_feed_loop_lag", "trio_feed_broadcast_latency")
"""Each process has its own, or they follow from others."""


class Growth:
    """Samples of one registry, again and again -> what has grown in between."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def of(self, samples: Iterable[Sample]) -> Sequence[Increment]:
        found = []
        for sample in samples:
            if sample.kind != "counter" or sample.name.startswith(_OF_THE_PROCESS):
                continue
            key = sample.name, tuple(sorted(sample.labels.items()))
            grown = sample.value - self._before.get(key, 0.0)
            if grown > 0:
                self._before[key] = sample.value
                found.append((sample.name, dict(sample.labels), grown))
        return found
