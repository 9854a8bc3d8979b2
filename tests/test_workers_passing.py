"""Pass-through at a worker: the parent has the way out.  What holds of one process holds here."""

import json
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import test_dialect_passing as alone
import trio
import trio_websocket
from attrs import define, evolve, field
from support.fleet import MemoryFleet
from support.hangup import until_logged
from support.stack import Stack, settings_for_tests
from test_dialect_passing import DIGEST, ENTRIES, LISTEN_KEY, api_request, arrived, tunnel, until
from test_workers import MORE, open_workers
from trio.testing import MockClock

from trio_feed.dialects.outside import Signed
from trio_feed.errors import ConnectionLost, RestError
from trio_feed.push.private.auth import USER_KEY, new_key
from trio_feed.settings import Settings
from trio_feed.workers.lines import HeldLines
from trio_feed.workers.pipe import NoAnswer
from trio_feed.workers.questions import DialQuestion
from trio_feed.workers.remote_outside import RemoteLines

__all__ = ["arrived"]


PASSING = (
    f"dialects.binance.passthrough={json.dumps(ENTRIES)}",
    "dialects.binance.websocket_api_url=ws://exchange:80",
    ".channels=['kline']",
)


def keys(**digests: str) -> str:
    """The assignment of API keys by name."""
    rows = [f"{{name='{name}', user_id=1, sha256='{digest}'}}" for name, digest in digests.items()]
    return f"auth.api_keys=[{', '.join(rows)}]"


@asynccontextmanager
async def fleet_of_two(
    *more: str,
    api_keys: str = keys(bot=DIGEST),
    reload: Callable[[], Settings] | None = None,
) -> AsyncIterator[tuple[Stack, MemoryFleet]]:
    settings = (*PASSING, api_keys, *more)
    async with open_workers(*settings, venue="binance", reload=reload) as (stack, fleet):
        await trio.sleep(30)
        stack.ready = evolve(stack.ready, address="push-2:80")
        yield stack, fleet


@asynccontextmanager
async def spot(*more: str, entries: list[str] = ENTRIES) -> AsyncIterator[Stack]:
    assert entries == ENTRIES
    async with fleet_of_two(*more) as (stack, _):
        yield stack


ASKED: Sequence[Callable[..., Any]] = [
    alone.test_a_signed_question_and_its_answer_are_passed_as_they_are,
    alone.test_an_order_in_a_body,
    alone.test_strangers_are_not_let_in,
    alone.test_no_room_in_the_budget,
    alone.test_requests_in_a_tunnel_use_the_budget,
    alone.test_a_large_body_is_refused,
]
OTHERS: Sequence[Callable[..., Any]] = [
    alone.test_who_is_of_this_machine,
    alone.test_an_exchange_that_is_not_in_reach,
    alone.test_requests_and_an_accounts_events_over_tunnels,
    alone.test_a_tunnel_ends_with_the_exchanges_side,
    alone.test_a_tunnel_to_nowhere_is_closed,
]


@pytest.mark.parametrize("case", ASKED)
async def test_as_in_one_process(
    case: Callable[..., Any],
    arrived: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
) -> None:
    monkeypatch.setattr(alone, "spot", spot)
    with trio.fail_after(1000):
        await case(arrived, autojump_clock)


@pytest.mark.parametrize("case", OTHERS)
async def test_as_in_one_process_too(
    case: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(alone, "spot", spot)
    with trio.fail_after(1000):
        await case(autojump_clock)


async def test_what_may_have_arrived_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(alone, "spot", spot)
    await alone.test_only_what_may_be_repeated_is_repeated(monkeypatch, autojump_clock)


async def test_nothing_secret_is_logged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(alone, "spot", spot)
    await alone.test_nothing_but_method_path_and_status_is_logged(capsys, autojump_clock)


async def test_a_worker_that_dies_takes_its_tunnels_along(autojump_clock: MockClock) -> None:
    async with fleet_of_two() as (stack, fleet):
        stream = await stack.network.dial("push-2", 80)
        name, _, value = alone.BEARER.partition(": ")
        async with trio.open_nursery() as nursery:
            await trio_websocket.wrap_client_stream(
                nursery,
                stream,
                "push",
                f"/binance/ws/{LISTEN_KEY}",
                extra_headers=[(name.encode(), value.encode())],
            )
            await until(lambda: len(stack.exchange.accounts.sockets) == 1)
            fleet.kill(2)
            await until(lambda: not stack.exchange.accounts.sockets)
            nursery.cancel_scope.cancel()
        await trio.sleep(5)
        async with tunnel(stack, "/binance/ws-api/v3") as api:  # at the one in its place
            await api.send_message(api_request("ping", 1))
            assert json.loads(await api.get_message())["id"] == 1


async def test_an_account_that_is_silent_keeps_its_tunnel(
    autojump_clock: MockClock,
) -> None:
    async with fleet_of_two() as (stack, _), tunnel(stack, f"/binance/ws/{LISTEN_KEY}") as events:
        await trio.sleep(200)
        async with tunnel(stack, "/binance/ws-api/v3") as api:
            order = api_request("order.place", 2, symbol="BTCUSDT", side="BUY", quantity="1")
            await api.send_message(order)
            event = json.loads(await events.get_message())
            assert event["e"] == "executionReport"


async def test_a_revoked_key_ends_its_tunnel_at_a_worker(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """SIGHUP: the settings have the other key only, whose tunnel goes on."""
    other, digest = new_key(USER_KEY)

    def reload() -> Settings:
        return settings_for_tests(*MORE, *PASSING, keys(other=digest), venue="binance")

    before = keys(bot=DIGEST, other=digest)
    async with fleet_of_two(api_keys=before, reload=reload) as (stack, _):
        async with tunnel(stack, "/binance/ws-api/v3") as api:
            monkeypatch.setattr(alone, "BEARER", f"Authorization: Bearer {other}")
            async with tunnel(stack, "/binance/ws-api/v3") as kept:
                for socket in (api, kept):
                    await socket.send_message(api_request("ping", 1))
                    await socket.get_message()
                with structlog.testing.capture_logs() as lines:
                    signal.raise_signal(signal.SIGHUP)
                    await until_logged(autojump_clock, lines, "settings.applied")
                with pytest.raises(trio_websocket.ConnectionClosed) as closed, trio.fail_after(10):
                    await api.get_message()
                reason = closed.value.reason
                assert reason is not None
                assert (reason.code, reason.reason) == (4401, "the API key was revoked")
                await kept.send_message(api_request("ping", 2))
                assert json.loads(await kept.get_message())["id"] == 2
        monkeypatch.setattr(alone, "BEARER", f"Authorization: Bearer {alone.TOKEN}")
        rejected = trio_websocket.ConnectionRejected
        with pytest.RaisesGroup(rejected, flatten_subgroups=True):
            async with tunnel(stack, "/binance/ws-api/v3"):
                pytest.fail("it was revoked")


@define(eq=False)
class Speaking:
    """An exchange that says numbers as fast as it is read, then ends."""

    count: int
    said: int = 0
    sent: list[str] = field(factory=list)
    dialled: int = 0

    @asynccontextmanager
    async def dial(self, _url: str, _target: str) -> AsyncIterator["Speaking"]:
        self.dialled += 1
        await trio.sleep(1)
        yield self

    async def receive_many(self) -> list[str]:
        await trio.lowlevel.checkpoint()
        if self.said == self.count:
            raise ConnectionLost("done", 1001, "bye")
        first, self.said = self.said, min(self.count, self.said + 10)
        return [f"{number} " + "x" * 100_000 for number in range(first, self.said)]

    async def send(self, text: str, weight: int = 0) -> None:
        self.sent.append(text)


ASKED_FOR = DialQuestion(5, "v", "", "/x")


async def test_a_line_is_read_no_faster_than_its_client_takes_it(autojump_clock: MockClock) -> None:
    exchange: Any = Speaking(40)
    async with trio.open_nursery() as nursery:
        lines = HeldLines(lambda _venue: exchange, nursery)
        assert await lines.open(ASKED_FOR) is None
        found: list[str | bytes] = []
        lost = None
        while lost is None:
            await trio.sleep(10)
            assert exchange.said <= len(found) + 20
            more, lost = await lines.receive(5)
            found += more
        assert [str(text).split()[0] for text in found] == [str(n) for n in range(40)]
        assert (lost.code, lost.reason) == (1001, "bye")
        lines.hang_up(5)
        assert len(lines) == 0
        assert (await lines.receive(5))[1] is not None
        assert await lines.send(5, "x", 1) is not None


async def test_a_line_that_is_hung_up_before_it_is_open_ends(autojump_clock: MockClock) -> None:
    """Also before the parent has begun with it."""
    exchange: Any = Speaking(40)
    async with trio.open_nursery() as nursery:
        lines = HeldLines(lambda _venue: exchange, nursery)
        lines.hang_up(5)
        assert await lines.open(ASKED_FOR) is not None
        assert exchange.dialled == 0
        nursery.start_soon(lines.open, ASKED_FOR)
        await trio.sleep(0.5)
        lines.hang_up(5)
        await trio.sleep(5)
        assert (exchange.dialled, exchange.said, len(lines)) == (1, 0, 0)


class Gone:
    """A pipe that has ended."""

    def put(self, _frame: Any) -> None:
        """Nowhere."""

    async def ask(self, *_: Any, **__: Any) -> bytes:
        await trio.lowlevel.checkpoint()
        raise NoAnswer("it has ended")


async def test_without_a_parent_nobody_knows_whether_it_arrived() -> None:
    pipe: Any = Gone()
    with pytest.raises(RestError):
        await RemoteLines(pipe).outside("v").ask(Signed("POST", b"/x"), 1)
