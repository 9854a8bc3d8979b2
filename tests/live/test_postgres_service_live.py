"""Whole services on one PostgreSQL: processes that are killed, and private events between them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from support.postgres import PostgresServer, postgres_server
from support.private import balance, event
from test_private_live import AUTH, PUBLISHER_SHA, Program, post
from test_service_live import ROOT, page, running

SECRET = "s3cret"
FEW = "exchanges.binance_usdm.symbols=['BTCUSDT']"
PRIVATE = (
    f"auth.api_keys=[{{name='a', user_id=1001, sha256='{AUTH.api_keys[0].sha256}'}}]",
    f"settlement.publishers=[{{name='engine', sha256='{PUBLISHER_SHA}'}}]",
)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as made:
        made.sql(
            f"CREATE ROLE locked LOGIN PASSWORD '{SECRET}'", "CREATE DATABASE live OWNER locked"
        )
        rules = made.folder / "data" / "pg_hba.conf"
        rules.write_text(f"host all locked all scram-sha-256\n{rules.read_text()}")
        made.sql("SELECT pg_reload_conf()")
        yield made


async def test_a_service_is_killed_and_goes_on(server: PostgresServer, tmp_path: Path) -> None:
    url = server.url("live", user="locked", password=SECRET)
    shown = server.url("live", user="locked")
    last = 0
    for _ in range(2):
        async with running(tmp_path, f"store.url={url}", FEW, *PRIVATE) as service:
            base = (await service.event("service.ready"))["urls"]["http"]
            with trio.fail_after(60):
                while (await page(base, "/ready"))[0] != 200:
                    await trio.sleep(0.05)
                told = json.loads((await page(base, "/api/v1/status"))[1])["store"]
                assert (told["place"], told["problem"]) == (shown, "")
                wanted = "/api/v1/klines?symbol=BTCUSDT&interval=1m&limit=500"
                rows = json.loads((await page(base, wanted))[1])["data"]
                opens = [row["time"] for row in rows]
                assert opens == list(range(opens[0], opens[0] + len(opens) * 60, 60))
                assert opens[-1] >= last
                last = opens[-1]
                while not server.sql("SELECT 1 FROM trio_feed.klines LIMIT 1", database="live"):
                    await trio.sleep(0.05)
            service.process.send_signal(signal.SIGKILL)
            await service.process.wait()
        assert SECRET not in json.dumps(service.lines)
    assert not (tmp_path / "candles.db").exists()
    for words in (["check"], ["check", "--connect"], ["check", "--connect", "--json"]):
        done = await trio.run_process(
            [sys.executable, "-m", "trio_feed", *words, "--set", f"store.url={url}",
             "--set", f"settlement.url={server.url('nothing')}", "--set", PRIVATE[1]],
            cwd=ROOT, capture_stdout=True, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        text = done.stdout.decode()
        assert SECRET not in text
        assert shown in " ".join(text.split()).replace("- ", "-")
        if "--connect" in words:
            assert "store: schema 2" in " ".join(text.split())
            assert "there is no such database" in " ".join(text.split())
            assert done.returncode == 2


async def test_without_the_library_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError('no pq wrapper available')")
    done = await trio.run_process(
        [sys.executable, "-m", "trio_feed", "--set", "store.url=postgresql://127.0.0.1:1/x"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=False,
        capture_stdout=True, capture_stderr=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.decode() == (
        'trio_feed: store.url: PostgreSQL needs a library: pip install ".[cluster]" in the'
        " checkout\n"
    )


@pytest.mark.parametrize("workers", [1, 2])
async def test_private_events_reach_the_clients_of_another_process_through_kills(
    workers: int, server: PostgresServer, tmp_path: Path
) -> None:
    """The publisher talks to one process, the client sits at another; processes and the server are
    killed in turn.  Every event that was accepted comes, once, in order."""
    program, end = Program(), f"end{workers}"
    accepted: list[str] = []
    number = 0
    url = f"settlement.url={server.url()}"

    async def publish(bases: list[str], until: trio.Event, done: trio.Event) -> None:
        nonlocal number
        while not until.is_set():
            rows = [
                event(f"{workers}e{number + n}", "balance.update", balance(), 1001)
                for n in range(3)
            ]
            if await post(bases[number // 3 % len(bases)], rows) is None:
                await trio.sleep(0.02)  # no answer, or 503: it sends the same again
                continue
            accepted.extend(row["event_id"] for row in rows)
            number += 3
        done.set()

    async def until_more(count: int) -> None:
        seen = len(accepted)
        while len(accepted) < seen + count:
            await trio.sleep(0.01)

    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    for turn in range(2):
        async with (
            running(folders[0], url, FEW, *PRIVATE) as one,
            running(folders[1], url, FEW, *PRIVATE, f"server.workers={workers}") as two,
            trio.open_nursery() as nursery,
        ):
            bases = [(await s.event("service.ready"))["urls"] for s in (one, two)]
            stop, stopped = trio.Event(), trio.Event()
            with trio.fail_after(90):
                last = end if turn else "never"
                follow = program.follow
                nursery.start_soon(trio.to_thread.run_sync, follow, bases[1]["websocket"], last)
                while len(program.recovered) <= turn:
                    await trio.sleep(0.02)
                nursery.start_soon(publish, [base["http"] for base in bases], stop, stopped)
                await until_more(30)
                await trio.to_thread.run_sync(server.stop, signal.SIGKILL)
                await trio.to_thread.run_sync(server.start)
                await until_more(30)
                stop.set()
                await stopped.wait()
                if turn:
                    done = [event(end, "balance.update", balance(), 1001)]
                    while await post(bases[0]["http"], done) is None:
                        await trio.sleep(0.02)
                else:
                    two.process.send_signal(signal.SIGKILL)
                    one.process.send_signal(signal.SIGKILL)
    assert program.recovered == [None, True]
    assert program.got.count(end) == 1
    assert len(set(program.got)) == len(program.got), "one came twice"
    assert set(accepted) <= set(program.got), "one that was accepted was lost"
    assert len(accepted) >= 120
