"""Binance's connections, spot and USD-M: which streams share one, and what is sent on it."""

import json
from collections.abc import Sequence
from urllib.parse import quote

from ...core.streams import Stream
from ..base import Frame, Plan

STREAMS_MAX = 1024
"""Streams per connection."""
SUBSCRIBE_MAX = 200
"""Streams per SUBSCRIBE; several hundred in one frame were seen to fail without a word."""
URL_MAX = 8_000
"""A longer URL was seen to deliver nothing (limit measured at 8004 characters)."""

_URL_SAFE = "@!+:~"
"""Characters that stay themselves in the URL of a stream; symbols may be of any alphabet."""


def plan(base: str, path: str, streams: Sequence[Stream], limit: int) -> list[Plan]:
    """Connections of at most ``limit`` streams of one path.

    One stream alone stands in the URL (``/ws/<name>``), unless its frames do not say whose they
    are; several are subscribed to on ``/stream``, where every frame names its stream.
    """
    size = min(limit, STREAMS_MAX)
    plans = []
    for start in range(0, len(streams), size):
        chunk = tuple(streams[start : start + size])
        alone = f"{base}{path}/ws/{quote(chunk[0].name, safe=_URL_SAFE)}"
        if len(chunk) == 1 and "@depth" not in chunk[0].name and len(alone) < URL_MAX:
            plans.append(Plan(alone, chunk))
        else:
            plans.append(Plan(f"{base}{path}/stream", chunk, _frames(chunk)))
    return plans


def _frames(streams: tuple[Stream, ...]) -> tuple[Frame, ...]:
    frames = []
    for number, start in enumerate(range(0, len(streams), SUBSCRIBE_MAX), start=1):
        names = [stream.name for stream in streams[start : start + SUBSCRIBE_MAX]]
        request = {"method": "SUBSCRIBE", "params": names, "id": number}
        text = json.dumps(request, ensure_ascii=False)
        frames.append(Frame(text, frozenset({str(number)})))
    return tuple(frames)
