"""The dashboard in a real browser, beside a running service.

``PAGE_SHOTS=folder`` keeps photographs of it, for people to look at.
"""

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve
from browser import CHROMIUM, Page, open_page
from support.box import real_now_ms
from test_service_live import Running, running

from trio_feed.model import Interval
from trio_feed.settings import SimulatorSettings
from trio_feed.simulator.chaos import Chaos, serve_with_faults
from trio_feed.simulator.exchanges import serve_exchange

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (apt-get install chromium)")

VENUE = "exchanges.binance_usdm"
CANDLES_WITHIN_S = 10
MOST_HEAP_BYTES = 150 * 2**20
STATE = "document.querySelector('#badge-stream').textContent"
CANDLES = "document.querySelector('#last').textContent.length > 1"
LEGEND = "document.querySelector('#legend').textContent"
REPAIRS = "[...document.querySelectorAll('#repairs tbody tr')].map(row => row.innerText)"


async def photograph(page: Page, name: str) -> None:
    """Light, dark and on a phone, where somebody wants to see them."""
    folder = os.environ.get("PAGE_SHOTS")
    if not folder:
        return
    await trio.Path(folder).mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        await page.look(width=1360, height=900, scheme=scheme)
        await trio.sleep(0.7)
        await page.photograph(Path(folder, f"{name}-{scheme}.png"))
    await page.look(width=390, height=844, phone=True)
    await trio.sleep(0.7)
    await page.photograph(Path(folder, f"{name}-phone.png"))
    await page.look(width=1360, height=900)


async def until_changed(page: Page) -> None:
    """The newest candle has."""
    before = await page.evaluate(LEGEND)
    await page.until(f"{LEGEND} !== {json.dumps(before)}", 10)


@asynccontextmanager
async def exchange() -> AsyncIterator[tuple[Any, tuple[str, ...]]]:
    """An exchange in a box, and the settings of a service that connects to it."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = "{}:{}".format(*listener.socket.getsockname())
    box = SimulatorSettings(venue="binance_usdm", trades_per_minute=600)
    start = partial(serve_exchange, box, listeners=[listener], now_ms=real_now_ms)
    async with trio.open_nursery() as nursery:
        yield (
            await nursery.start(start),
            (
                "simulator.enabled=false",
                f"{VENUE}.symbols=['BTCUSDT', 'ETHUSDT']",
                f"{VENUE}.intervals=['1m', '5m']",
                f"{VENUE}.trade_intervals=['1s']",
                f"{VENUE}.channels=['kline', 'trade', 'ticker']",
                f"{VENUE}.connection.websocket_url=ws://{address}",
                f"{VENUE}.connection.rest_url=http://{address}",
            ),
        )
        nursery.cancel_scope.cancel()


async def url_of(service: Running, which: str = "http") -> str:
    return str((await service.event("service.ready"))["urls"][which])


@asynccontextmanager
async def shown(tmp_path: Path, service: Running, series: str = "") -> AsyncIterator[Page]:
    url = f"{await url_of(service)}/{series and '#' + series}"
    async with open_page(tmp_path / "profile", url) as page:
        yield page


async def test_a_killed_feed_turns_stale_and_what_was_missing_comes(tmp_path: Path) -> None:
    async with (
        exchange() as (box, settings),
        running(tmp_path, *settings) as service,
        shown(tmp_path, service, "binance_usdm/BTCUSDT/1s") as page,
    ):
        await page.until(f"{CANDLES} && {STATE} === 'live'", CANDLES_WITHIN_S)
        await page.until("document.querySelector('#spread').textContent.includes('bp')", 10)
        await page.until("document.querySelectorAll('#tape tbody tr').length > 3", 10)
        await until_changed(page)
        box.refuse_upgrades(503, 4)
        for connection in list(box.connections):
            connection.abort()
        await page.until(f"{STATE} === 'stale' || {STATE} === 'repairing'", 15)
        await photograph(page, "stale")
        await page.until(f"{STATE} === 'live'", 60)
        await page.until(f"{REPAIRS}.some(text => text.includes('repaired'))", 30)
        (repaired,) = [row for row in await page.evaluate(REPAIRS) if "repaired" in row]
        _, state, missing, came, source, *_ = repaired.split("\t")
        assert state == "repaired"
        assert "candle" in missing
        assert " at " in came
        assert source in ("backfill", "trades")
        await page.until("document.querySelectorAll('#timeline .repaired').length > 0", 10)
        await page.until("document.querySelectorAll('#connections tbody tr').length > 0", 10)
        await photograph(page, "repaired")
        heap = await page.call("Runtime.getHeapUsage")
        assert heap["usedSize"] < MOST_HEAP_BYTES
        assert page.complaints == []


KEEP_SOCKETS = """
window.sockets = [];
window.WebSocket = class extends WebSocket {
  constructor(...of) { super(...of); sockets.push(this); }
};
"""
DAY = """(async (hours) => {
  const from = Math.floor(Date.now() / 1000) + 5;
  let offset = 1e6, trade = 1e9;
  const tell = (type, id, more) => {
    const now = Date.now(), stream = { exchange: "binance_usdm", symbol: "BTCUSDT" };
    const number = { subscription_id: `${id}-1`, epoch: 1, offset: ++offset };
    const times = { event_time: now, received_at: now, source: "exchange" };
    const data = { ...stream, ...number, ...times, ...more };
    sockets.at(-1).onmessage({ data: JSON.stringify({ type, timestamp: now, data }) });
  };
  for (let second = 0; second < hours * 3600; second++) {
    const time = from + second, open = 60000 + Math.round(Math.sin(second / 900) * 1000);
    for (const is_final of [false, false, true]) {
      const prices = { open, high: open + 9, low: open - 9, close: open + second % 7 };
      const data = { time, ...prices, volume: 1.5, trades: 9, is_final, complete: true };
      tell("kline_data", "kline", { interval: "1s", update_type: "update", data });
    }
    for (let each = 0; each < 5; each++) {
      const side = each % 2 ? "buy" : "sell";
      const data = { trade_id: ++trade, price: open, quantity: 0.25, side, time: time * 1000 };
      tell("trade_data", "trade", { channel: "trade", data });
    }
    if (second % 600 === 599)
      for (const status of ["stale", "repairing", "repaired"])
        tell("stream_status", "kline", { interval: "1s", status, from: time - 3, to: time - 1 });
    if (second % 60 === 0) await new Promise(requestAnimationFrame);  // it draws
  }
  return offset;
})"""


async def heap_bytes(page: Page) -> int:
    await page.call("HeapProfiler.collectGarbage")
    return int((await page.call("Runtime.getHeapUsage"))["usedSize"])


async def test_a_day_of_messages_leaves_no_heap_behind(tmp_path: Path) -> None:
    """24 hours of one-second candles, trades and outages, told to the page as fast as it takes
    them."""
    async with (
        exchange() as (_, settings),
        running(tmp_path, *settings) as service,
        open_page(tmp_path / "profile", "about:blank") as page,
    ):
        await page.call("Page.addScriptToEvaluateOnNewDocument", source=KEEP_SOCKETS)
        url = f"{await url_of(service)}/#binance_usdm/BTCUSDT/1s"
        await page.call("Page.navigate", url=url)
        await page.until(f"{CANDLES} && {STATE} === 'live'", CANDLES_WITHIN_S)
        await page.evaluate(f"{DAY}(2)")  # what there is room for is full
        before = await heap_bytes(page)
        told = await page.evaluate(f"{DAY}(24)")
        after = await heap_bytes(page)
        print(
            f"heap {before / 2**20:.1f} MiB, after {told - 1_000_000} messages {after / 2**20:.1f}"
        )
        last = await page.evaluate("document.querySelector('#last').textContent")
        assert 58_990 < float(last.replace(",", "")) < 61_010, "it took them"
        assert any("repaired" in row for row in await page.evaluate(REPAIRS))
        tape = "document.querySelector('#tape tbody').innerText"
        assert "0.25" in await page.evaluate(tape)
        assert after < MOST_HEAP_BYTES
        assert after < 1.5 * before
        assert page.complaints == []


async def test_it_resumes_when_the_service_starts_again(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        port = (await url_of(service)).rpartition(":")[2]
        async with shown(tmp_path, service) as page:
            await page.until(f"{CANDLES} && {STATE} === 'live'", CANDLES_WITHIN_S)
            simulated = "!document.querySelector('#badge-simulated').hidden"
            assert await page.evaluate(simulated)
            assert page.complaints == []
            await photograph(page, "simulated")
            await page.evaluate("document.querySelector('#symbol').value = 'ETHUSDT'")
            changed = "new Event('change', {bubbles: true})"
            await page.evaluate(f"document.querySelector('#symbol').dispatchEvent({changed})")
            await page.until(
                "document.title.includes('ETHUSDT') && location.hash.includes('ETH')", 10
            )
            service.process.send_signal(signal.SIGTERM)
            badge = "document.querySelector('#badge-connection').textContent"
            await page.until(f"{badge}.startsWith('reconnecting')", 15)
            page.frames.clear()
            await service.process.wait()
            async with running(tmp_path, f"server.port={port}"):
                await page.until(f"{badge} === 'connected' && {STATE} === 'live'", 30)
                await until_changed(page)
            asked = [json.loads(frame) for frame in page.frames if '"subscribe"' in frame]
            assert [each for each in asked if each.get("interval") and each["since"]["epoch"]]
            assert any('"recovered":' in frame for frame in page.frames)
            # While nobody listens, a browser itself complains of each refused connection.
            refused = "ERR_CONNECTION_REFUSED"
            assert [said for said in page.complaints if refused not in said] == []


NOTICE = "document.querySelector('#notice').textContent"
BOUNDS = """(async () => {
  const { Tape, Latency } = await import("/web/market.js");
  const { Candles } = await import("/web/candles.js");
  const { Repairs, showTable } = await import("/web/repairs.js");
  const evil = "<img src=x onerror=alert(1)>";
  const tape = new Tape(), candles = new Candles(), repairs = new Repairs();
  for (let n = 0; n < 20000; n += 1) {
    tape.add({ price: n, quantity: 1, time: n, side: evil });
    candles.put({ time: n, open: 1, high: 1, low: 1, close: 1, is_final: true });
    candles.trim();
    repairs.status({ status: n % 2 ? "repaired" : "stale", reason: evil }, n);
  }
  tape.show(true);
  showTable(repairs);
  return [
    document.querySelectorAll("#tape tbody tr").length, candles.rows.length,
    repairs.entries.length, document.querySelectorAll("#repairs tbody tr").length,
    document.querySelectorAll("main img").length,
    document.querySelector("#repairs tbody").textContent.includes(evil),
  ];
})()"""
INLINE = """(() => {
  const script = document.createElement("script");
  try { script.textContent = "window.ran = true"; document.body.append(script); } catch { }
  try { document.querySelector("#notice").innerHTML = "<b id=made></b>"; } catch { }
  return [window.ran === true, document.querySelector("#made") !== null];
})()"""


async def test_with_an_admin_bind_each_port_shows_its_part(tmp_path: Path) -> None:
    """And its memory is bounded, and no text becomes HTML: nothing else changes that page."""
    chosen = ("server.admin_host=127.0.0.1", "server.admin_port=0")
    async with running(tmp_path, *chosen) as service, shown(tmp_path, service) as page:
        await page.until(CANDLES, CANDLES_WITHIN_S)
        await page.evaluate("location.hash = 'binance_usdm/NOPE/1m'")
        await page.until(f"{NOTICE}.includes('no symbol NOPE of binance_usdm here')", 10)
        await page.until("!location.hash.includes('NOPE')", 10)
        await page.evaluate("location.hash = 'binance_usdm/ETHUSDT/1m'")
        await page.until(f"{NOTICE} === ''", 10)
        where = await page.evaluate("document.querySelector('#no-connections').textContent")
        assert "server.admin_host" in where
        await page.call("Page.navigate", url=await url_of(service, "admin"))
        await page.until("document.querySelectorAll('#connections tbody tr').length > 0", 10)
        assert await page.evaluate("document.querySelector('#market').hidden")
        await photograph(page, "operators")
        tape, candles, repairs, rows, images, shown_as_text = await page.evaluate(BOUNDS)
        assert (tape, repairs, rows, images) == (40, 50, 50, 0)
        assert 4000 <= candles <= 5000
        assert shown_as_text
        assert page.complaints == []
        assert await page.evaluate(INLINE) == [False, False]
        assert page.complaints, "the policy says nothing"


@asynccontextmanager
async def behind_proxies(*more: str) -> AsyncIterator[tuple[Any, tuple[str, ...], str]]:
    """The same behind two proxies, the first of which nobody listens at; yields the address of the
    other one as well."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    (way,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port, by = listener.socket.getsockname()[1], f"127.0.0.1:{way.socket.getsockname()[1]}"
    box = SimulatorSettings(venue="binance_usdm", trades_per_minute=600)
    serve = partial(
        serve_with_faults, box, Chaos((), 1.0, print), [listener], port=port, proxy=[way]
    )
    async with trio.open_nursery() as nursery:
        running_box = await nursery.start(serve)
        yield (
            running_box,
            (
                "simulator.enabled=false",
                f"{VENUE}.symbols=['BTCUSDT']",
                f"{VENUE}.intervals=['1m']",
                f"{VENUE}.trade_intervals=[]",
                f"{VENUE}.channels=['kline', 'book']",
                f"{VENUE}.connection.proxies=['http://127.0.0.1:1', 'http://{by}']",
                f"{VENUE}.connection.websocket_url=ws://127.0.0.1:{port}",
                f"{VENUE}.connection.rest_url=http://127.0.0.1:{port}",
                *more,
            ),
            by,
        )
        nursery.cancel_scope.cancel()


async def test_proxies_the_book_and_a_revision(tmp_path: Path) -> None:
    """A venue with a book and without tickers and trades, by the second of two proxies; then the
    exchange changes a closed candle."""
    async with (
        behind_proxies() as (box, settings, by),
        running(tmp_path, *settings) as service,
        shown(tmp_path, service, "binance_usdm/BTCUSDT/1m") as page,
    ):
        await page.until(f"{CANDLES} && {STATE} === 'live'", CANDLES_WITHIN_S)

        await page.until("!document.querySelector('#proxies-panel').hidden", 10)
        table = "[...document.querySelectorAll('#proxies tbody tr')].map(row => row.innerText)"
        await page.until(f"{table}.length === 2 && {table}[1].includes('healthy')", 10)
        dead, alive = await page.evaluate(table)
        assert dead.startswith("binance_usdm\thttp 127.0.0.1:1\tcooling\t0\t")
        assert "cannot be reached" in dead
        assert alive.startswith(f"binance_usdm\thttp {by}\thealthy\t")
        connections = await page.evaluate(table.replace("proxies", "connections"))
        assert len(connections) == 2, "candles and books have one each"
        assert all(f"\t{by}\t" in row and "\tlive\t" in row for row in connections)

        # Top of book without a ticker: of the book.  No trades: said.
        await page.until("document.querySelector('#spread').textContent.includes('bp')", 10)
        bid, ask = [
            float((await page.evaluate(f"document.querySelector('#{side}').textContent"))
                  .partition(" ")[0].replace(",", ""))
            for side in ("bid", "ask")
        ]  # fmt: skip
        assert 0 < bid < ask
        nothing = "This venue's trades are not among its channels."
        assert await page.evaluate("document.querySelector('#no-trades').textContent") == nothing

        open_ms = int(real_now_ms()) // 60_000 * 60_000 - 60_000
        old = box.market.candle("BTCUSDT", Interval.M1, open_ms)
        box.correct("BTCUSDT", evolve(old, volume=old.volume * 2, close=old.high))
        await page.until(f"{REPAIRS}.some(text => text.includes('revised'))", 15)
        (revised,) = [row for row in await page.evaluate(REPAIRS) if "revised" in row]
        assert "1 candle, " in revised
        await page.until("document.querySelectorAll('#timeline .revised').length === 1", 10)
        title = await page.evaluate("document.querySelector('#timeline .revised').title")
        assert "revised, source exchange" in title
        await photograph(page, "revised")
        assert page.complaints == []


async def test_a_venue_without_ticker_and_book_says_what_it_needs(tmp_path: Path) -> None:
    async with (
        behind_proxies(f"{VENUE}.channels=['kline']") as (_, settings, _by),
        running(tmp_path, *settings) as service,
        shown(tmp_path, service) as page,
    ):
        await page.until(f"{CANDLES} && {STATE} === 'live'", CANDLES_WITHIN_S)
        spread = "document.querySelector('#spread').textContent"
        await page.until(f"{spread} === 'needs the ticker channel'", 10)
        assert await page.evaluate("document.querySelector('#bid').textContent") == "\u2013"
        assert "(24 h)" not in await page.evaluate("document.querySelector('#change').textContent")
        assert page.complaints == []
