"""Private events at workers where other processes write the journal, too."""

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import trio
from support.private import T_MS, balance, event, keys_for
from support.stack import PushClient, Stack
from test_private_events import Bell, Lagging, SharedMemory, SharedNode
from test_workers import ask, client_of, open_workers

from trio_feed import service
from trio_feed.metrics import Metrics
from trio_feed.push.private.auth import PUBLISHER_KEY, new_key
from trio_feed.settings import SettlementSettings
from trio_feed.store.journal_memory import MemoryJournalBackend

PUBLISHER, DIGEST = new_key(PUBLISHER_KEY)
KEYS, AUTH = keys_for(1001)
SETTINGS = (
    f"auth.api_keys=[{{name='a', user_id=1001, sha256='{AUTH.api_keys[0].sha256}'}}]",
    f"settlement.publishers=[{{name='engine', sha256='{DIGEST}'}}]",
)


class Database:
    """A journal that the service shares with ``other``."""

    def __init__(self, *, deaf: bool) -> None:
        self.rows, self.bells = MemoryJournalBackend(T_MS), list[Bell]()
        self.deaf, self.other = deaf, SharedNode(self.rows, self.bells)
        self.ours: Any = None

    @asynccontextmanager
    async def opened(self, *_: Any, **__: Any) -> AsyncIterator[Lagging]:
        chance = random.Random(1)
        self.ours = SharedMemory(self.rows, self.bells, deaf=self.deaf)
        journal = Lagging(
            self.ours, SettlementSettings(), in_threads=False, now_ms=lambda: float(T_MS),
            metrics=Metrics(), shared=self.ours,
        )  # fmt: skip
        journal.lag = lambda: chance.random() * 0.05
        yield journal


@asynccontextmanager
async def two_services(
    monkeypatch: pytest.MonkeyPatch, *, deaf: bool = False
) -> AsyncIterator[tuple[Stack, Any, Database]]:
    database = Database(deaf=deaf)
    monkeypatch.setattr(service, "open_journal", database.opened)
    async with open_workers(*SETTINGS) as (stack, fleet), trio.open_nursery() as nursery:
        nursery.start_soon(database.other.run)
        yield stack, fleet, database
        nursery.cancel_scope.cancel()


async def post(stack: Stack, worker: int, name: str) -> None:
    body = json.dumps([event(name, "balance.update", balance(), 1001)]).encode()
    head = f"Authorization: Bearer {PUBLISHER}\r\nContent-Length: {len(body)}\r\n"
    code, text = await ask(stack, worker, "/api/v1/settlement/events", head, body)
    assert (code, json.loads(text)["accepted"]) == (200, 1), text


def offsets(client: PushClient) -> list[int]:
    return [m["offset"] for m in client.messages if m["type"] == "balance.update"]


@pytest.mark.parametrize("deaf", [False, True])
async def test_what_two_services_take_in_reaches_clients_of_all_workers_in_order(
    deaf: bool, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbered in turn by this service, at either worker, and by another one."""
    chance = random.Random(3)
    async with two_services(monkeypatch, deaf=deaf) as (stack, fleet, database):

        async def report(worker: int) -> None:
            for number in range(15):
                await trio.sleep(chance.random() * 0.2)
                await post(stack, worker, f"{worker}-{number}")

        async def report_elsewhere() -> None:
            for _ in range(30):
                await trio.sleep(chance.random() * 0.1)
                await database.other.settle(1001)

        async with client_of(stack, 1) as one, client_of(stack, 2) as two:
            for client in (one, two):
                await client.ask(type="auth", token=KEYS[1001])
                epoch = (await client.of_type("auth.success"))["epoch"]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(report, 1)
                nursery.start_soon(report, 2)
                nursery.start_soon(report_elsewhere)
            await trio.sleep(3)
            assert offsets(one) == offsets(two) == list(range(1, 61))
            fleet.kill(1)
            await database.other.settle(1001)
            await trio.sleep(3)
            assert offsets(two)[-1] == 61
        async with client_of(stack, 1) as again:
            await again.ask(type="auth", token=KEYS[1001], since={"epoch": epoch, "offset": 60})
            await database.other.settle(1001)
            await trio.sleep(3)
            assert offsets(again) == [61, 62]


async def test_a_journal_that_the_parent_cannot_read_is_said_and_tried_again(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_services(monkeypatch) as (stack, _, database):
        async with client_of(stack, 1) as one:
            await one.ask(type="auth", token=KEYS[1001])
            await one.of_type("auth.success")
            database.ours.broken = True
            with structlog.testing.capture_logs() as logs:
                await database.other.settle(1001)
                await trio.sleep(10)
            assert offsets(one) == []
            said = [line["event"] for line in logs if "journal" in line["event"]]
            assert said == ["journal.read_failed"]
            database.ours.broken = False
            await trio.sleep(2)
            assert offsets(one) == [1]
