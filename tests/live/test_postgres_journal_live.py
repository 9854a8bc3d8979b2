"""Private events in PostgreSQL: what every journal answers, several processes that write at once,
and events that reach the clients of another process."""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import test_journal as contract
import trio
from attrs import define, field
from support.postgres import PostgresServer, postgres_server

from trio_feed.metrics import Metrics
from trio_feed.model import Delivery, PrivateMessage, Settlement
from trio_feed.push.private.events import PrivateFeed
from trio_feed.settings import DatabaseUrl, SettlementSettings
from trio_feed.store import AppendStatus, Journal, open_journal
from trio_feed.store.journal import JournalBackend
from trio_feed.store.journal_memory import MemoryJournalBackend

BOTH = [  # the tests of both other backends, with the fixture of this file
    name
    for name, test in vars(contract).items()
    if name.startswith("test_") and "backend" in getattr(test, "__annotations__", ())
]
globals().update({name: getattr(contract, name) for name in BOTH})


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as made:
        yield made


@pytest.fixture
def url(server: PostgresServer) -> DatabaseUrl:
    """Of an empty database."""
    server.sql("DROP SCHEMA IF EXISTS trio_feed CASCADE")
    return DatabaseUrl(server.url())


def opened(url: DatabaseUrl, now_ms: float = 7) -> JournalBackend:
    from trio_feed.store.postgres import open_postgres_journal

    return open_postgres_journal(url, "store.url", now_ms=now_ms)


@pytest.fixture
def backend(url: DatabaseUrl) -> Iterator[JournalBackend]:
    made = opened(url)
    yield made
    made.close()


def test_there_is_a_contract() -> None:
    assert len(BOTH) >= 14


def test_memory_and_postgres_are_twins(backend: JournalBackend) -> None:
    chance, memory = random.Random(1), MemoryJournalBackend(7)
    at = 0
    for _ in range(150):
        at += 3
        if chance.random() < 0.1:
            before = chance.randrange(at)
            found = [each.prune(before, before / 2, 3) for each in (memory, backend)]
            assert found[0] == found[1]
        else:
            batch = [
                contract.event(
                    f"e{chance.randrange(60)}",
                    *(
                        (chance.choice((None, 1, 2, 3)), chance.choice((None, 1, 2, 3, 4, 5)))
                        for _ in range(chance.randint(1, 2))
                    ),
                    at_ms=at,
                )
                if chance.random() < 0.9
                else contract.to_all(f"all{chance.randrange(5)}")
                for _ in range(chance.randrange(4))
            ]
            one, two = memory.settle(batch), backend.settle(batch)
            assert one.outcomes == two.outcomes
            assert one.messages == two.messages
        for user in (1, 2, 3):
            assert memory.head(user) == backend.head(user)
            assert memory.read(user, 0, 999, 999) == backend.read(user, 0, 999, 999)


def test_an_epoch_belongs_to_the_database(url: DatabaseUrl) -> None:
    for now in (7, 99):
        backend = opened(url, now)
        assert (backend.epoch, backend.shared_epoch) == (7, None)
        backend.close()


def test_an_id_may_hold_anything(backend: JournalBackend) -> None:
    """PostgreSQL's text has no NUL, and one such id must not stop all others."""
    ids = ["a\0b", "\\x610062", "\\x5c78", "é\n\t\\N"]
    batch = [Settlement("engine", each, (Delivery(1, None, '"x":1'),), 1000.0) for each in ids]
    for event in batch:
        assert contract.statuses(backend.settle([event, event])) == ["accepted", "duplicate"]
    assert contract.statuses(backend.settle(batch)) == ["duplicate"] * 4


async def test_many_writers_at_once_number_without_holes(url: DatabaseUrl) -> None:
    """The same events in other orders, new users, one order for two users, broadcasts."""
    backends = [opened(url) for _ in range(4)]
    accepted: dict[str, int] = {}
    sold = set()

    async def write(backend: JournalBackend, seed: int) -> None:
        chance = random.Random(seed)
        numbers = list(range(120))
        chance.shuffle(numbers)
        for first in range(0, len(numbers), 6):
            batch = [
                contract.to_all(f"all{n}", f"{n}")
                if n % 20 == 0
                else contract.event(f"e{n}", (n % 7 + 1, None), ((n + 1) % 5 + 1, 1000 + n))
                for n in numbers[first : first + 6]
            ]
            batch.append(contract.event(f"order{seed}-{first}", (100 + seed, first + 1)))
            settled = await trio.to_thread.run_sync(backend.settle, batch)
            for event, outcome in zip(batch, settled.outcomes, strict=True):
                new = outcome.status is AppendStatus.ACCEPTED
                accepted[event.event_id] = accepted.get(event.event_id, 0) + new
                if new and event.event_id.startswith("order"):
                    sold.add((event.deliveries[0].order_id, event.deliveries[0].user_id))

    try:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for seed, backend in enumerate(backends):
                    nursery.start_soon(write, backend, seed)
        assert {n: c for n, c in accepted.items() if not n.startswith("order")} == {
            f"e{n}" if n % 20 else f"all{n}": 1 for n in range(120)
        }
        assert len({order for order, _ in sold}) == len(sold) == 20, "an order of two users"
        for user in range(1, 8):
            rows = backends[0].read(user, 0, 10_000, 10_000)
            assert [row.offset for row in rows] == list(range(1, backends[0].head(user) + 1))
            assert len({row.body for row in rows}) == len(rows)
    finally:
        for backend in backends:
            backend.close()


async def test_an_order_that_two_processes_hear_of_at_once_has_one_owner(url: DatabaseUrl) -> None:
    backends = [opened(url) for _ in range(4)]
    owners: dict[int, list[int]] = {}

    async def write(backend: JournalBackend, user: int) -> None:
        backend.meet([user])
        for order in range(1, 101):
            settle = partial(backend.settle, [contract.event(f"{user}-{order}", (user, order))])
            (outcome,) = (await trio.to_thread.run_sync(settle)).outcomes
            if outcome.status is AppendStatus.ACCEPTED:
                owners.setdefault(order, []).append(user)

    try:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for user, backend in enumerate(backends, 1):
                    nursery.start_soon(write, backend, user)
        assert {order: len(users) for order, users in owners.items()} == dict.fromkeys(
            range(1, 101), 1
        )
    finally:
        for backend in backends:
            backend.close()


@define(eq=False)
class Listening:
    """A client, as far as the feed knows it."""

    client_id: str = "c"
    texts: list[str] = field(factory=list)
    left: list[int] = field(factory=list)

    def deliver(self, text: str) -> None:
        self.texts.append(text)

    reply = deliver

    async def wait_capacity(self) -> None:
        await trio.lowlevel.checkpoint()

    def leave(self, code: int, reason: str, last_message: str) -> None:
        self.left.append(code)

    async def until(self, count: int) -> list[str]:
        while len(self.texts) < count:
            await trio.sleep(0.01)
        return self.texts


@asynccontextmanager
async def node(url: DatabaseUrl) -> AsyncIterator[tuple[Journal, PrivateFeed]]:
    """A process, as far as private events go."""
    async with open_journal(
        SettlementSettings(), "", url=url, now_ms=lambda: 1000.0, metrics=Metrics()
    ) as journal:
        feed = PrivateFeed(journal, lambda: 1000.0, Metrics(), others=journal.others)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run, feed.publish)
            nursery.start_soon(feed.follow)
            yield journal, feed
            nursery.cancel_scope.cancel()


async def sits(feed: PrivateFeed, user: int) -> Listening:
    client = Listening()
    subscription = await feed.subscribe(client, user)
    subscription.live = True
    return client


async def test_events_reach_the_clients_of_another_process(url: DatabaseUrl) -> None:
    with trio.fail_after(60):
        async with node(url) as (one, feed_one), node(url) as (two, feed_two):
            assert one.epoch == two.epoch
            clients = [await sits(feed, 1) for feed in (feed_one, feed_two)]
            for n in range(40):
                journal = (one, two)[n % 2]
                await journal.append([contract.event(f"e{n}", (1, None), (2, None))])
            for client in clients:
                texts = await client.until(40)
                assert len(texts) == 40
                assert [f'"e{n}":0' in text for n, text in enumerate(texts)] == [True] * 40
                assert client.left == []


async def test_a_lost_notification_is_made_good(url: DatabaseUrl) -> None:
    """No NOTIFY comes at all: within about a second everybody is looked at."""
    with trio.fail_after(60):
        async with node(url) as (_one, feed), node(url) as (two, _):
            client = await sits(feed, 1)
            # As if the other process was this one: its notifications are passed over.
            listener = feed._journal._shared.listener  # type: ignore[union-attr]
            await two.append([contract.event("a", (1, None))])
            listener.own_pid = two._shared.listener.own_pid  # type: ignore[union-attr,attr-defined]
            for n in range(3):
                await two.append([contract.event(f"e{n}", (1, None))])
            assert len(await client.until(4)) == 4


async def test_a_server_that_is_killed_in_the_middle(
    server: PostgresServer, url: DatabaseUrl
) -> None:
    """What was acknowledged is there, what was not comes again, and each client gets each once."""
    kept: list[str] = []
    refusals = 0

    async def publish(journal: Journal, name: str, until: trio.Event) -> None:
        nonlocal refusals
        number = 0
        while not until.is_set():
            batch = [contract.event(f"{name}{number}", (1, None), (2, None))]
            try:
                await journal.append(batch)
            except contract.JournalError:
                refusals += 1
                await trio.sleep(0.02)
                continue  # the publisher sends the same again
            kept.append(f"{name}{number}")
            number += 1

    with trio.fail_after(120):
        async with node(url) as (one, feed_one), node(url) as (two, feed_two):
            clients = [await sits(feed, 1) for feed in (feed_one, feed_two)]
            stop = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish, one, "a", stop)
                nursery.start_soon(publish, two, "b", stop)
                for _ in range(3):
                    seen = len(kept)
                    while len(kept) < seen + 60:
                        await trio.sleep(0.01)
                    await trio.to_thread.run_sync(server.stop, 9)
                    await trio.to_thread.run_sync(server.start)
                seen = len(kept)
                while len(kept) < seen + 60:
                    await trio.sleep(0.01)
                stop.set()
            assert refusals
            rows = None
            while rows is None:  # a dial that failed just now is not tried again for a moment
                try:
                    rows = await one.read(1, 0, 10**6, 10**6)
                except contract.JournalError:
                    await trio.sleep(0.1)
            bodies = [row.body for row in rows]
            assert sorted(bodies) == sorted(f'"{name}":0' for name in kept)
            for client in clients:
                texts = await client.until(len(rows))
                assert len(texts) == len(rows)
                assert all(body in text for body, text in zip(bodies, texts, strict=True))
                assert client.left == []


async def test_a_message_is_read_back_as_it_was_published(url: DatabaseUrl) -> None:
    told: list[PrivateMessage] = []
    with trio.fail_after(30):
        async with open_journal(
            SettlementSettings(), "", url=url, now_ms=lambda: 1000.0, metrics=Metrics()
        ) as journal:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(journal.run, told.extend)
                for n in range(5):
                    await journal.append([contract.event(f"e{n}", (1, None))])
                assert await journal.read(1, 0, 99) == told
                nursery.cancel_scope.cancel()
