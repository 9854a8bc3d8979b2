"""Autobahn's fuzzing server against our fast transport; see ``scripts/conformance``.

Each case is a connection of its own, on which the client sends back what it gets.  The last one
asks for the report.
"""

import json
import os
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio

from trio_feed.net import websocket_fast
from trio_feed.net.counted_stream import CountedStream
from trio_feed.net.frames import client_frame
from trio_feed.net.limits import FrameBudget
from trio_feed.net.transport import Limits, ProtocolBroken, TransportEnded
from trio_feed.net.urls import WebSocketUrl

AGENT = "trio_feed"
RUN = (
    "import site, sys; site.addsitedir(sys.argv[1]);"
    "from autobahntestsuite.wstest import run;"
    "sys.argv = ['wstest', '-m', 'fuzzingserver', '-s', sys.argv[2], '-u', '0']; run()"
)
LIMITS = Limits(max_message_bytes=17 * 1024 * 1024, unread=1000, send_s=30.0)
_CASE_S = 60.0
_TEXT, _BINARY = 1, 2


async def judge(python2: str, folder: str, report: Path, cases: list[str]) -> None:
    """Run the suite; its report lies in ``report`` afterwards."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()  # the suite takes a port by number only
    url = f"ws://127.0.0.1:{port}"
    chosen = {"url": url, "outdir": str(report), "cases": cases, "exclude-cases": []}
    spec = trio.Path(report / "spec.json")
    await spec.write_text(json.dumps({**chosen, "exclude-agent-cases": {}}))
    command = [python2, "-c", RUN, folder, str(spec)]
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, check=False, stdout=2, stderr=2)
        process = await nursery.start(run)
        try:
            number = int((await _asked(url, "/getCaseCount"))[0])
            for case in range(1, number + 1):
                with trio.move_on_after(_CASE_S):
                    await _echo(url, f"/runCase?case={case}&agent={AGENT}")
            await _asked(url, f"/updateReports?agent={AGENT}")
        finally:
            process.kill()


async def _asked(url: str, path: str) -> list[str | bytes]:
    """What a connection that only tells something tells."""
    told: list[str | bytes] = []
    await _talk(url, path, told, answer=False)
    return told


async def _echo(url: str, path: str) -> None:
    await _talk(url, path, [], answer=True)


async def _talk(url: str, path: str, told: list[str | bytes], *, answer: bool) -> None:
    target = WebSocketUrl.parse(url + path)
    tcp = await _dial(target)
    stream = CountedStream(tcp, FrameBudget((10**9, 1.0)))
    async with trio.open_nursery() as nursery:
        transport = await websocket_fast.connect(nursery, stream, target, LIMITS)
        try:
            while True:
                for message in await transport.receive():
                    if answer:
                        await _send_back(transport, message)
                    else:
                        told.append(message)
        except (TransportEnded, ProtocolBroken):
            pass  # said to the server, who judges it
        finally:
            with trio.move_on_after(1), suppress(trio.BrokenResourceError):
                await tcp.receive_some(1)  # the server is the one that ends TCP (RFC 6455, 7.1.1)
            nursery.cancel_scope.cancel()
            await trio.aclose_forcefully(tcp)


async def _send_back(transport: object, message: str | bytes) -> None:
    assert isinstance(transport, websocket_fast.FastTransport)
    if isinstance(message, str):
        await transport.send(message)
    else:  # no exchange wants binary, so the transport has no call for it
        await transport._send(client_frame(_BINARY, message, os.urandom(4)))


async def _dial(target: WebSocketUrl) -> trio.abc.Stream:
    """The suite takes a moment to start."""
    with trio.fail_after(30):
        while True:
            try:
                return await trio.open_tcp_stream(target.host, target.port)
            except OSError:
                await trio.sleep(0.1)
