"""Waiting for nodes, and asking them."""

from collections.abc import Awaitable, Callable

import trio


async def get(address: str, path: str) -> tuple[int, bytes]:
    """Status and body; (0, nothing) where there is no answer."""
    host, _, port = address.rpartition(":")
    answer = b""
    try:
        with trio.fail_after(3):
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                ask = f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
                await stream.send_all(ask.encode())
                answer = b"".join([chunk async for chunk in stream])
    except (OSError, trio.BrokenResourceError, trio.TooSlowError):
        return 0, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    return (int(words[1]) if len(words) > 1 else 0), body


async def until(condition: Callable[[], Awaitable[bool]], within_s: float) -> bool:
    with trio.move_on_after(within_s):
        while True:
            if await condition():
                return True
            await trio.sleep(0.1)
    return False
