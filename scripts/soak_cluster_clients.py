"""The clients of ``scripts/soak --cluster``: each comes back for ever, elsewhere where its node is
gone or says nothing, and resumes where it was; and the publisher of private events."""

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import trio
import trio_websocket
from attrs import define, field

from scripts.soak_cluster_judge import CandleWatch, PrivateWatch, Silence, TradeWatch

INTERVALS = {"1s": 1, "1m": 60}
_HANDSHAKE_S = 5.0
_SILENT_S = 4.0
"""Then it is asked for a pong, and left where it does not come."""
_PAUSE_S = (0.05, 0.5)
_ANSWER_S = 5.0
_ENDS = (
    trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, OSError,
    trio_websocket.ConnectionClosed, trio_websocket.HandshakeError,
)  # fmt: skip
_decode = msgspec.json.decode


@define(eq=False)
class Client:
    """``pick(last)``: host:port of a push node, another than the last one where there is one."""

    symbol: str
    token: str
    pick: Callable[[str], str]
    chance: random.Random
    counts: Counter[str] = field(factory=Counter)
    candles: dict[str, CandleWatch] = field(init=False)
    trades: TradeWatch = field(init=False)
    private: PrivateWatch = field(init=False)
    silence: Silence = field(factory=lambda: Silence(trio.current_time()))
    node: str = ""
    authenticated: bool = False
    statuses: Counter[str] = field(factory=Counter)

    def __attrs_post_init__(self) -> None:
        self.candles = {name: CandleWatch(step, self.counts) for name, step in INTERVALS.items()}
        self.trades, self.private = TradeWatch(self.counts), PrivateWatch(self.counts)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.node = self.pick(self.node)
            try:
                async with trio.open_nursery() as nursery:
                    await self._listen(nursery)
                    nursery.cancel_scope.cancel()
            except* _ENDS:
                pass
            self.counts["reconnects"] += 1
            await trio.sleep(self.chance.uniform(*_PAUSE_S))

    async def _listen(self, nursery: trio.Nursery) -> None:
        host, _, port = self.node.rpartition(":")
        with trio.fail_after(_HANDSHAKE_S):
            stream = await trio.open_tcp_stream(host, int(port))
            connection = await trio_websocket.wrap_client_stream(
                nursery, stream, self.node, "/ws", message_queue_size=10_000,
                max_message_size=2**24,
            )  # fmt: skip
        try:
            for request in self._requests():
                await connection.send_message(json.dumps(request))
            waiting = False
            while True:
                with trio.move_on_after(_SILENT_S):
                    self._take(_decode(await connection.get_message()))
                    waiting = False
                    continue
                if waiting:
                    self.counts["left_a_silent_node"] += 1
                    return
                await connection.send_message('{"type":"ping"}')
                waiting = True
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await trio.aclose_forcefully(stream)

    def _requests(self) -> list[dict[str, Any]]:
        ask = {"type": "subscribe", "symbol": self.symbol}
        return [
            {"type": "auth", "token": self.token}
            | ({} if (since := self.private.number.since()) is None else {"since": since}),
            *(ask | {"interval": i} | watch.opening() for i, watch in self.candles.items()),
            ask | {"channel": "trade"} | self.trades.opening(),
        ]

    def _take(self, message: dict[str, Any]) -> None:
        now, kind, data = trio.current_time(), message["type"], message.get("data")
        self.trades.settle(now)
        match kind:
            case "kline_data":
                self.silence.note(now)
                self.candles[data["interval"]].update(data)
            case "trade_data":
                self.silence.note(now)
                self.trades.update(data, now)
            case "history_data":
                watch = self.candles[data["interval"]]
                watch.history(data["data"])
                watch.number.note(data)
            case "subscription_confirmed":
                self._confirmed(data)
            case "stream_status":
                self.statuses[data["status"]] += 1
                if data.get("channel") == "trade" and data["status"] == "unrepairable":
                    self.trades.tell()
            case "auth.success":
                self.authenticated = True
                if message.get("recovered") is False:
                    self.counts["private_not_recovered"] += 1
                if not message.get("recovered"):
                    self.private.number.note(message)
            case "error":
                self.counts[f"error {message['code']}"] += 1
                if message["code"] in (1002, 1003, 1004):
                    raise trio.BrokenResourceError  # it is asked again, elsewhere
            case _ if "event_id" in message:
                self.private.update(message)

    def _confirmed(self, data: Mapping[str, Any]) -> None:
        recovered = data.get("recovered")
        if recovered is not None:
            self.counts["resumed"] += 1
            self.counts["not_recovered"] += not recovered
        if data.get("channel") == "trade":
            if recovered is False:
                self.trades.tell()
            if not recovered:
                self.trades.number.note(data)


@define(eq=False)
class Publisher:
    """Posts events to the nodes in turn, each until it was accepted; ``accepted`` of each user."""

    key: str
    users: Sequence[int]
    pick: Callable[[str], str]
    every_s: float = 0.2
    accepted: dict[int, list[str]] = field(factory=dict)
    refused: Counter[str] = field(factory=Counter)
    worst_s: float = 0.0
    """From the first try to the answer."""

    async def run(self) -> None:
        """Until cancelled."""
        number, node = 0, ""
        while True:
            rows = [_event(user, number) for user in self.users]
            began = trio.current_time()
            while True:
                node = self.pick(node)
                answer = await self._post(node, rows)
                if answer == "":
                    break
                self.refused[answer] += 1
                await trio.sleep(0.1)
            self.worst_s = max(self.worst_s, trio.current_time() - began)
            for user, row in zip(self.users, rows, strict=True):
                self.accepted.setdefault(user, []).append(row["event_id"])
            number += 1
            await trio.sleep(self.every_s)

    async def _post(self, node: str, rows: list[dict[str, Any]]) -> str:
        """Why it was not accepted; empty: it was."""
        host, _, port = node.rpartition(":")
        body = json.dumps(rows)
        head = (
            f"POST /api/v1/settlement/events HTTP/1.1\r\nHost: {node}\r\n"
            f"Authorization: Bearer {self.key}\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        answer = b""
        with trio.move_on_after(_ANSWER_S) as scope, suppress(OSError, trio.BrokenResourceError):
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                await stream.send_all(f"{head}{body}".encode())
                answer = b"".join([chunk async for chunk in stream])
        if scope.cancelled_caught or b"\r\n\r\n" not in answer:
            return "no answer"
        status = answer.split(b" ", 2)[1].decode()
        if status != "200":
            return status
        told = _decode(answer.partition(b"\r\n\r\n")[2])
        whole = told["accepted"] + told["duplicates"] == len(rows)
        return "" if whole else f"rejected: {told['rejected']}"


def _event(user: int, number: int) -> dict[str, Any]:
    data = {
        "asset": "BTC", "avail": str(number), "frozen": "0", "change": "+1", "reason": "soak",
    }  # fmt: skip
    return {
        "event_id": f"{user}-{number}", "type": "balance.update", "user_id": user, "data": data
    }  # fmt: skip
