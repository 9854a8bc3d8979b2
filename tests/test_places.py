"""Places for clients over all workers, and what their counters have grown by."""

from trio_feed.metrics import Metrics
from trio_feed.telemetry import Sample
from trio_feed.workers.counts import Growth
from trio_feed.workers.places import Places, Room


def test_no_more_clients_than_there_is_room_for() -> None:
    places = Places({"a": Room(3, 2), "b": Room(1, 0)})
    assert [places.take(1, "a", "x"), places.take(2, "a", "x")] == ["", ""]
    assert places.take(2, "a", "x") == "connections_per_ip"
    assert places.take(2, "a", "y") == ""
    assert places.take(1, "a", "z") == "connections"
    assert places.take(1, "b", "x") == ""  # another server has places of its own
    places.leave(2, "a", "x")
    assert places.take(1, "a", "x") == ""
    assert places.taken("a") == 3


def test_a_worker_that_is_gone_holds_none() -> None:
    places = Places({"a": Room(3, 0)})
    for worker in (1, 1, 2):
        places.take(worker, "a", "x")
    places.forget(1)
    assert places.taken("a") == 1
    places.leave(1, "a", "x")  # which comes late
    assert places.taken("a") == 1
    assert [places.take(3, "a", "y") for _ in range(3)] == ["", "", "connections"]


def test_without_a_bound_of_its_own_an_address_may_have_all() -> None:
    places = Places({"a": Room(50, 0)})
    assert not any(places.take(1, "a", "x") for _ in range(50))


def sample(value: float, kind: str = "counter", name: str = "trio_feed_a_total") -> Sample:
    return Sample(name, "", kind, {"l": "1"}, value)


def test_growth_is_told_once() -> None:
    growth = Growth()
    assert list(growth.of([sample(3), sample(9, "gauge", "b")])) == [
        ("trio_feed_a_total", {"l": "1"}, 3)
    ]
    assert list(growth.of([sample(3)])) == []
    assert list(growth.of([sample(5), sample(7, name="process_cpu_seconds_total")])) == [
        ("trio_feed_a_total", {"l": "1"}, 2)
    ]


def text(metrics: Metrics) -> list[str]:
    page = metrics.exposition().decode().splitlines()
    wanted = ("trio_feed_push_latency", "trio_feed_requests", "trio_feed_pushed", "trio_feed_jour")
    return [line for line in page if line.startswith(wanted)]


def test_what_grew_elsewhere_is_on_the_one_page() -> None:
    """Also in histograms."""
    here, there, both = Metrics(), Metrics(), Metrics()
    growth = Growth()
    for turn, values in enumerate([(0.0001, 0.02, 9.0), (), (0.3,)]):
        for metrics in (there, both):
            for value in values:
                metrics.push_latency.of("written").observe(value)
                metrics.journal_commit.observe(value)
            metrics.requests.labels("subscribe").inc(turn)
            metrics.pushed.inc(2)
        here.absorb([*growth.of(there.samples()), ("unknown_total", {}, 1.0)])
    for metrics in (here, both):
        metrics.push_latency.of("written").observe(0.004)
    assert text(here) == text(both)
    assert len(text(here)) > 20
