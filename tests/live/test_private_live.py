"""Private events on a real disk and through a real process that is killed."""

import json
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import websockets.sync.client
from support.private import balance, event, keys_for
from test_service_live import running

from trio_feed.errors import JournalError, StartError
from trio_feed.metrics import Metrics
from trio_feed.model import Delivery, PrivateMessage, Settlement
from trio_feed.push.private.auth import PUBLISHER_KEY, new_key
from trio_feed.settings import SettlementSettings
from trio_feed.store import AppendStatus, Journal, open_journal

PUBLISHER, PUBLISHER_SHA = new_key(PUBLISHER_KEY)
KEYS, AUTH = keys_for(1001)


def settled(event_id: str, user: int = 1, size: int = 1) -> Settlement:
    return Settlement("engine", event_id, (Delivery(user, None, f'"x":"{"y" * size}"'),), 1000.0)


@asynccontextmanager
async def journal_of(path: Path) -> AsyncIterator[tuple[Journal, list[PrivateMessage]]]:
    told: list[PrivateMessage] = []
    metrics, chosen = Metrics(), SettlementSettings()
    with trio.fail_after(30):
        async with open_journal(chosen, str(path), now_ms=lambda: 1000.0, metrics=metrics) as made:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(made.run, told.extend)
                yield made, told
                nursery.cancel_scope.cancel()


async def test_what_was_appended_is_there_the_next_time(tmp_path: Path) -> None:
    async with journal_of(tmp_path / "j.db") as (journal, told):
        epoch = journal.epoch
        async with trio.open_nursery() as nursery:
            for n in range(40):
                nursery.start_soon(journal.append, [settled(f"e{n}"), settled(f"f{n}", 2)])
        assert sorted({m.offset for m in told if m.user_id == 1}) == list(range(1, 41))
    async with journal_of(tmp_path / "j.db") as (journal, again):
        assert journal.epoch == epoch
        assert await journal.read(1, 0, 99) == [m for m in told if m.user_id == 1]
        (outcome,) = await journal.append([settled("e7")])
        assert outcome.status is AppendStatus.DUPLICATE
        await journal.append([settled("new")])
        assert [m.offset for m in again] == [41]


async def test_a_full_disk_costs_the_request_only(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    async with journal_of(path) as (journal, told):
        writer: sqlite3.Connection = journal._backend._writer  # type: ignore[attr-defined]
        (pages,) = writer.execute("PRAGMA page_count").fetchone()
        writer.execute(f"PRAGMA max_page_count = {pages + 2}").fetchall()
        with pytest.raises(JournalError, match="full"):
            await journal.append([settled("big", size=100_000)])
        assert told == []
        assert await journal.head(1) == 0
        writer.execute("PRAGMA max_page_count = 100000").fetchall()
        (outcome,) = await journal.append([settled("big", size=100_000)])
        assert (outcome.status, told[0].offset) == (AppendStatus.ACCEPTED, 1)


async def test_an_unusable_path_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StartError, match=r"settlement\.path: .*cannot be opened"):
        async with open_journal(
            SettlementSettings(), str(tmp_path / "file" / "j.db"), now_ms=lambda: 1.0,
            metrics=Metrics(),
        ):  # fmt: skip
            pass


@attrs.define
class Program:
    """A user's program: one connection at a time, resumes where it was."""

    since: dict[str, int] | None = None
    got: list[str] = attrs.field(factory=list)
    recovered: list[Any] = attrs.field(factory=list)

    def follow(self, url: str, until: str) -> None:
        """Collect until ``until`` came or the connection ends."""
        ask: dict[str, Any] = {"type": "auth", "token": KEYS[1001]}
        if self.since is not None:
            ask["since"] = self.since
        try:
            with websockets.sync.client.connect(url, open_timeout=10) as client:
                client.send(json.dumps(ask))
                while until not in self.got:
                    self.take(json.loads(client.recv(timeout=20)))
        except (websockets.exceptions.ConnectionClosed, OSError):
            pass

    def take(self, message: dict[str, Any]) -> None:
        if message["type"] == "auth.success":
            self.recovered.append(message.get("recovered"))
            if self.since is None:
                self.since = {"epoch": message["epoch"], "offset": message["offset"]}
        elif "event_id" in message:
            assert self.since is not None
            assert message["offset"] == self.since["offset"] + 1
            self.since = {"epoch": message["epoch"], "offset": message["offset"]}
            self.got.append(message["event_id"])


async def post(base: str, rows: list[Any]) -> dict[str, Any] | None:
    """None: no answer came."""
    host, _, port = base.removeprefix("http://").rpartition(":")
    body = json.dumps(rows).encode()
    head = (
        f"POST /api/v1/settlement/events HTTP/1.1\r\nHost: {host}:{port}\r\n"
        f"Authorization: Bearer {PUBLISHER}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    try:
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(head.encode() + body)
            answer = b"".join([chunk async for chunk in stream])
    except (OSError, trio.BrokenResourceError):
        return None
    status, _, text = answer.partition(b"\r\n\r\n")
    if b" 200 " not in status.split(b"\r\n")[0]:
        return None
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:  # killed in the middle of its answer
        return None
    return found


async def test_what_was_accepted_survives_kill_9_and_comes_once(tmp_path: Path) -> None:
    assignments = (
        f"auth.api_keys=[{{name='a', user_id=1001, sha256='{AUTH.api_keys[0].sha256}'}}]",
        f"settlement.publishers=[{{name='engine', sha256='{PUBLISHER_SHA}'}}]",
    )
    program, accepted = Program(), []
    number = 0

    async def publish(base: str, count: int) -> None:
        """Several at once, each request of three events; what got no answer is sent again."""
        nonlocal number
        for _ in range(count):
            rows = [event(f"e{number + n}", "balance.update", balance(), 1001) for n in range(3)]
            if await post(base, rows) is None:
                return
            accepted.extend(row["event_id"] for row in rows)
            number += 3

    for turn in range(3):
        async with running(tmp_path, *assignments) as service, trio.open_nursery() as nursery:
            urls = (await service.event("service.ready"))["urls"]
            with trio.fail_after(60):
                last = "end" if turn == 2 else "never"
                nursery.start_soon(trio.to_thread.run_sync, program.follow, urls["websocket"], last)
                while len(program.recovered) <= turn:
                    await trio.sleep(0.02)
                if turn == 2:
                    await publish(urls["http"], 5)
                    await post(urls["http"], [event("end", "balance.update", balance(), 1001)])
                else:
                    nursery.start_soon(publish, urls["http"], 10_000)
                    seen = len(accepted)
                    while len(accepted) < seen + 30:
                        await trio.sleep(0.01)
                    service.process.send_signal(signal.SIGKILL)
    assert program.recovered == [None, True, True]
    assert program.got.count("end") == 1
    assert len(set(program.got)) == len(program.got), "one came twice"
    assert set(accepted) <= set(program.got), "one that was accepted was lost"
    assert len(accepted) >= 60
