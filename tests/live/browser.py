"""A headless Chromium, driven over its DevTools protocol
(chromedevtools.github.io/devtools-protocol).

Pages are looked at with ``evaluate`` and photographed; what they complain of is collected.
"""

import itertools
import json
import os
import shutil
import subprocess
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
import trio_websocket
from attrs import define, field

_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)
_FLAGS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--hide-scrollbars",
    "--mute-audio",
)


@define
class Page:
    """One tab.  ``complaints``: errors and warnings of its console, exceptions, failed requests,
    violations of its policy."""

    connection: trio_websocket.WebSocketConnection
    complaints: list[str] = field(factory=list)
    frames: list[str] = field(factory=list)
    """Texts on its WebSockets, both ways; only of the last thousand."""
    _numbers: Any = field(factory=itertools.count)
    _replies: dict[int, dict[str, Any]] = field(factory=dict)
    _changed: trio.Event = field(factory=trio.Event)

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        request = {"id": number, "method": method, "params": params}
        await self.connection.send_message(json.dumps(request))
        while number not in self._replies:
            await self._changed.wait()
        reply = self._replies.pop(number)
        assert "error" not in reply, f"{method}: {reply.get('error')}"
        result: dict[str, Any] = reply["result"]
        return result

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        more = {"returnByValue": True, "awaitPromise": True}
        found = await self.call("Runtime.evaluate", expression=expression, **more)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def until(self, expression: str, within_s: float) -> Any:
        """The first value of the expression that is true; while it raises (the page is loading),
        it is not."""
        tolerant = f"(() => {{ try {{ return {expression} }} catch {{ return null }} }})()"
        with trio.move_on_after(within_s):
            while not (value := await self.evaluate(tolerant)):
                await trio.sleep(0.1)
            return value
        shown = await self.evaluate("document.body.innerText")
        raise AssertionError(f"not within {within_s:g} s: {expression}\n{shown}\n{self.complaints}")

    async def look(
        self, *, width: int, height: int, scheme: str = "light", phone: bool = False
    ) -> None:
        """The size of the window, and the colours that its user prefers."""
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1}
        await self.call("Emulation.setDeviceMetricsOverride", mobile=phone, **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def photograph(self, file: Path, *, whole: bool = True) -> None:
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        await trio.Path(file).write_bytes(b64decode(shot["data"]))

    async def collect(self) -> None:
        """Take in what comes.  Runs until the tab is gone."""
        try:
            while True:
                message = json.loads(await self.connection.get_message())
                if "id" in message:
                    self._replies[message["id"]] = message
                    self._changed.set()
                    self._changed = trio.Event()
                elif message["method"] in _FRAMES:
                    self.frames.append(message["params"]["response"]["payloadData"])
                    del self.frames[:-1000]
                elif complaint := _complaint(message["method"], message["params"]):
                    self.complaints.append(complaint)
        except trio_websocket.ConnectionClosed:
            return


_FRAMES = ("Network.webSocketFrameSent", "Network.webSocketFrameReceived")


def _complaint(method: str, params: dict[str, Any]) -> str:
    if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
        return str([part.get("value", part.get("description")) for part in params["args"]])
    if method == "Runtime.exceptionThrown":
        details = params["exceptionDetails"]
        return str(details.get("exception", {}).get("description", details["text"]))
    if method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
        return f"{params['entry']['text']} {params['entry'].get('url', '')}"
    return ""


@asynccontextmanager
async def open_page(profile: Path, url: str) -> AsyncIterator[Page]:
    """A browser of its own with one tab, which loads ``url``; both are gone on the way out."""
    assert CHROMIUM is not None
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
    command = [CHROMIUM, *_FLAGS, *sandbox, f"--user-data-dir={profile}", "about:blank"]
    quiet = subprocess.DEVNULL
    run = partial(trio.run_process, command, check=False, stdout=quiet, stderr=quiet)
    async with trio.open_nursery() as nursery:
        process = await nursery.start(run)
        try:
            async with trio_websocket.open_websocket_url(
                await _tab(profile), max_message_size=2**26
            ) as connection:
                page = Page(connection)
                nursery.start_soon(page.collect)
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await page.call(f"{domain}.enable")
                await page.look(width=1360, height=900)
                await page.call("Page.navigate", url=url)
                yield page
        finally:
            process.terminate()
            with trio.move_on_after(5, shield=True):
                await process.wait()
            if process.returncode is None:
                process.kill()


async def _tab(profile: Path) -> str:
    """The address of the first tab, when the browser is up."""
    file = trio.Path(profile, "DevToolsActivePort")
    with trio.fail_after(30):
        while not (await file.exists() and len(lines := (await file.read_text()).split()) == 2):
            await trio.sleep(0.05)
        port, path = lines
        async with trio_websocket.open_websocket_url(f"ws://127.0.0.1:{port}{path}") as browser:
            await browser.send_message(json.dumps({"id": 0, "method": "Target.getTargets"}))
            while "id" not in (reply := json.loads(await browser.get_message())):
                pass
    (target,) = [t for t in reply["result"]["targetInfos"] if t["type"] == "page"]
    return f"ws://127.0.0.1:{port}/devtools/page/{target['targetId']}"
