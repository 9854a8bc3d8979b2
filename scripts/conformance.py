"""Autobahn's fuzzing client against an echo behind our own server, and its fuzzing server against
our own client; see ``scripts/conformance``."""

import json
import os
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # the package lies beside this folder, installed or not
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import trio

from scripts import conformance_client
from trio_feed import logs
from trio_feed.metrics import Metrics
from trio_feed.push.edge.admission_check import AdmissionRules
from trio_feed.push.edge.endpoint import bound_address
from trio_feed.push.edge.limits import ServerLimits
from trio_feed.push.edge.server import Application, serve
from trio_feed.push.edge.websocket import ClientWebSocket
from trio_feed.push.fanout.frames import text_frame
from trio_feed.settings import LoggingSettings

REPORT = Path("build/conformance")
CLIENT_REPORT = Path("build/conformance-client")
CASES = os.environ.get("CASES", "1.* 2.* 3.* 4.* 5.* 6.* 7.* 9.1.1 9.2.1 9.5.1 9.6.1").split()
LIMITS = ServerLimits(
    max_message_bytes=17 * 1024 * 1024,
    frames_per_s=1e6,
    frame_burst=10**7,
    controls_per_s=1e6,
    control_burst=10**7,
)
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
GOOD_CLOSE = GOOD | {"FAILED BY CLIENT"}
"""That the server ends TCP first after an invalid Close frame is, it says, preferred."""
OUT_OF_ORDER = {"6.4.3", "6.4.4"}
"""One frame in pieces, seconds apart: the suite puts its pong to our first ping into its middle."""
RUN = (
    "import site, sys; site.addsitedir(sys.argv[1]);"
    "from autobahntestsuite.wstest import run;"
    "sys.argv = ['wstest', '-m', 'fuzzingclient', '-s', sys.argv[2]]; run()"
)


async def lifespan(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that has no pages."""
    assert scope["type"] == "lifespan", "Autobahn opens WebSockets"
    while (kind := (await receive())["type"]) != "lifespan.shutdown":
        await send({"type": f"{kind}.complete"})
    await send({"type": "lifespan.shutdown.complete"})


async def echo(client: ClientWebSocket) -> None:
    """Sends back what it gets."""
    while (message := await client.receive()) is not None:
        if isinstance(message, str):
            frame = text_frame(message.encode())
        else:
            frame = b"\x82" + text_frame(message)[1:]
        await client.stream.send_frames((frame,))


async def judge(python2: str, folder: str) -> None:
    """Run the suite; its report lies there afterwards."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"ws://{bound_address(listeners[0])}/"
    server = {"agent": "trio_feed", "url": url}
    chosen = {"outdir": str(REPORT), "servers": [server], "cases": CASES, "exclude-cases": []}
    spec = trio.Path(REPORT / "spec.json")
    await spec.write_text(json.dumps({**chosen, "exclude-agent-cases": {}}))
    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(
                serve, Application(lifespan, lambda _: echo), listeners=listeners, limits=LIMITS,
                rules=AdmissionRules(),
                metrics=Metrics(), stop_accepting=trio.Event(),
            )
        )  # fmt: skip
        await trio.run_process([python2, "-c", RUN, folder, str(spec)], stdout=sys.stderr)
        nursery.cancel_scope.cancel()


def main(python2: str, folder: str) -> int:
    """Returns the exit code."""
    logs.configure(LoggingSettings(level="error"), sys.stderr)
    code = 0
    for report, judging in ((REPORT, judge), (CLIENT_REPORT, judge_client)):
        report.mkdir(parents=True, exist_ok=True)
        trio.run(judging, python2, folder)
        code |= verdict(report)
    return code


async def judge_client(python2: str, folder: str) -> None:
    await conformance_client.judge(python2, folder, CLIENT_REPORT, CASES)


def verdict(report: Path) -> int:
    """Print what came out; returns 1 where a case failed."""
    results = json.loads((report / "index.json").read_text())["trio_feed"]
    for part in ("behavior", "behaviorClose"):
        print(report.name, part, dict(Counter(case[part] for case in results.values())))
    bad = {
        name: case["behavior"]
        for name, case in results.items()
        if case["behavior"] not in GOOD
        or (case["behaviorClose"] not in GOOD_CLOSE and name not in OUT_OF_ORDER)
    }
    for name, behavior in sorted(bad.items()):
        print(f"{name}: {behavior}, see {report / 'index.html'}")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
