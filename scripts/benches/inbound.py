"""``scripts/bench inbound``: messages from a socket into the program.

*As fast as it goes*: a sender on one core writes aggTrades of twenty symbols over one WebSocket, as
fast as they are taken; the reader, a process of its own on the other core, is each implementation
in turn (:mod:`.inbound_readers`).  The row "plain recv" reads the same bytes and looks at nothing:
what it reaches is the ceiling of sender and machine, so the sender limits nobody who is well below
it.  The same over TLS, ours through a CONNECT proxy (which the sender plays, on the same
connection: a relay of its own would want a third core).

*Paced*: 10,000 messages a second over fifty connections; what counts is CPU per message.  "Read
each 10 ms" is ``read_batch_us = 10000``.
"""

import ssl
import tempfile
from pathlib import Path
from typing import Any

import trustme

from .exchange import Exchange, send_fast, send_paced, symbols
from .processes import LOADING, MEASURED, child, pin
from .result import Result, Target

_FAST = {
    "plain recv": "recv",
    "picows + uvloop, into our type": "picows",
    "websockets + json": "websockets",
    "cryptofeed, whole path": "cryptofeed",
    "trio-websocket, into our type": "library",
    "trio_feed, into our type": "fast",
    "trio_feed, whole path": "whole",
    "trio_feed, whole path, every update": "whole0",
}
_TLS = {
    "TLS: picows + uvloop, into our type": "picows",
    "TLS: cryptofeed, whole path": "cryptofeed",
    "TLS, CONNECT: trio_feed, into our type": "fast",
    "TLS, CONNECT: trio_feed, whole path": "whole",
}
_PACED = {
    "paced: trio receive_some, nothing else": "bare",
    "paced: uvloop protocol, nothing else": "bare_uvloop",
    "paced: trio_feed, into our type": "fast",
    "paced: trio_feed, whole path": "whole",
    "paced: trio_feed, whole path, read each 10 ms": "whole_each_10_ms",
}
_PARSED = "received and parsed / cryptofeed's whole path"
_PICOWS = "received and parsed / picows + uvloop into the same type"
_WHOLE = "whole path / cryptofeed's whole path"
_TUNNEL = "TLS through CONNECT, received and parsed / cryptofeed's whole path, TLS, direct"
_CPU = "paced: CPU received and parsed / bare receive_some"
_CPU_WHOLE = "paced: CPU of the whole path / bare receive_some"
_CPU_PACE = "paced: CPU of the whole path, read each 10 ms / bare receive_some"
_RATIOS = {
    _PARSED: ("trio_feed, into our type", "cryptofeed, whole path"),
    _PICOWS: ("trio_feed, into our type", "picows + uvloop, into our type"),
    _WHOLE: ("trio_feed, whole path", "cryptofeed, whole path"),
    "whole path, every update / cryptofeed's whole path": (
        "trio_feed, whole path, every update",
        "cryptofeed, whole path",
    ),
    _TUNNEL: ("TLS, CONNECT: trio_feed, into our type", "TLS: cryptofeed, whole path"),
    "received and parsed / trio-websocket": (
        "trio_feed, into our type",
        "trio-websocket, into our type",
    ),
    "plain recv / received and parsed": ("plain recv", "trio_feed, into our type"),
    _CPU: ("paced: trio_feed, into our type", "paced: trio receive_some, nothing else"),
    _CPU_WHOLE: ("paced: trio_feed, whole path", "paced: trio receive_some, nothing else"),
    _CPU_PACE: (
        "paced: trio_feed, whole path, read each 10 ms",
        "paced: trio receive_some, nothing else",
    ),
}
_TARGETS = (
    Target(_PARSED, 2.0),
    Target(_PICOWS, 0.9),
    Target(_TUNNEL, 1.5),
    Target(_WHOLE, 1.0),
    Target(_CPU, 1.3, most=True),
    Target(_CPU_WHOLE, 1.3, most=True),
    Target(_CPU_PACE, 1.3, most=True),
)
_CONNECTIONS, _PER_S = 50, 10_000
_QUICK = ("websockets + json", "trio_feed, whole path, every update")
"""Left out of a quick run: nothing is measured against them."""


def run(quick: bool) -> Result:
    """Rounds of every reader."""
    rounds, seconds = (1, 0.8) if quick else (5, 1.0)
    pin(LOADING)
    result = Result("inbound", "messages/s", _RATIOS, _TARGETS)
    with tempfile.TemporaryDirectory() as folder:
        authority = trustme.CA()
        ca_file = Path(folder, "ca.pem")
        authority.cert_pem.write_to_path(str(ca_file))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        fast = {row: reader for row, reader in _FAST.items() if not (quick and row in _QUICK)}
        plain = {row: _Measure(reader, seconds) for row, reader in fast.items()}
        secured = {
            row: _Measure(reader, seconds, str(ca_file), context) for row, reader in _TLS.items()
        }
        slow = {row: _Measure(reader, 1.5 * seconds, paced=True) for row, reader in _PACED.items()}
        for _ in range(rounds):
            result.rounds(1, {**plain, **secured})
            result.rounds(1, slow, "us CPU/message")
    return result


class _Measure:
    """One run of one reader: messages per second, or microseconds of CPU per message."""

    def __init__(
        self,
        reader: str,
        seconds: float,
        ca_file: str = "",
        context: ssl.SSLContext | None = None,
        *,
        paced: bool = False,
    ) -> None:
        self._reader, self._seconds, self._paced = reader, seconds, paced
        self._ca_file, self._context = ca_file, context

    def __call__(self) -> float:
        """Raises RuntimeError where the reader fails."""
        names = symbols(_CONNECTIONS if self._paced else 20)
        number = _CONNECTIONS if self._paced else 1
        exchange = Exchange(names, self._context)
        job: dict[str, Any] = {
            "reader": self._reader, "port": exchange.port, "seconds": self._seconds,
            "symbols": names, "connections": number, "ca_file": self._ca_file,
        }  # fmt: skip
        try:
            with child("inbound_readers", job, MEASURED, SSL_CERT_FILE=self._ca_file) as reader:
                connections = exchange.accept(number, lambda: reader.process.poll() is None)
                if self._paced:
                    send_paced(connections, names, _PER_S, self._seconds + 1.5)
                elif connections:
                    send_fast(connections[0], names, self._seconds + 1.5)
                found = reader.read()
                for connection in connections:
                    connection.close()
        finally:
            exchange.close()
        if self._paced:
            return float(found["cpu_s"]) / float(found["messages"]) * 1e6
        return float(found["messages"]) / float(found["seconds"])
