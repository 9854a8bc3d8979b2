"""``scripts/bench parse``: CPU per message from bytes to our events, in one process, no socket.

Beside it: orjson alone (a dict), msgspec and json for the same bytes, and the handler that
cryptofeed runs for a message (``message_handler`` with a callback that does nothing).
"""

import gc
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from .processes import MEASURED, pin
from .result import Result

Parse = Callable[[bytes], object]
_NAMES = tuple(f"S{n}USDT" for n in range(20))
_T0 = 1_760_000_000_000


def run(quick: bool) -> Result:
    pin(MEASURED)
    result = Result("parse", "us CPU/message")
    rounds, number = (5, 2_000) if quick else (9, 10_000)
    kinds: dict[str, Callable[[], float]] = {}
    for kind, raws in messages(number).items():
        venue = "okx" if kind.startswith("OKX") else "binance_usdm"
        beside = {
            f"{kind}: orjson alone": _orjson(),
            f"{kind}: json alone": json.loads,
            f"{kind}: trio_feed, events": ours(venue),
        }
        if kind in _CRYPTOFEED:
            beside[f"{kind}: cryptofeed's handler"] = _cryptofeed(kind)
        for row, parse in beside.items():
            if parse is None:
                result.skip(row, "not installed")
            else:
                kinds[row] = partial(_cost_us, parse, raws)
    result.rounds(rounds, kinds)
    result.ratios = {
        f"{kind}: trio_feed / cryptofeed": (
            f"{kind}: trio_feed, events",
            f"{kind}: cryptofeed's handler",
        )
        for kind in _CRYPTOFEED
    }
    return result


def _cost_us(parse: Parse, raws: Sequence[bytes]) -> float:
    gc.collect()
    began = time.process_time()
    for raw in raws:
        parse(raw)
    return (time.process_time() - began) / len(raws) * 1e6


def _orjson() -> Parse | None:
    try:
        import orjson
    except ImportError:
        return None
    loads: Parse = orjson.loads
    return loads


def ours(venue: str) -> Parse:
    from trio_feed.model import Instrument
    from trio_feed.venues.binance import usdm
    from trio_feed.venues.instruments import Instruments
    from trio_feed.venues.okx import venue as okx

    if venue == "okx":
        natives = {name: f"{name[:-4]}-USDT" for name in _NAMES}
        table = Instruments([Instrument(venue, n, natives[n], "spot") for n in _NAMES])
        return lambda raw: okx.parse(raw, table)
    table = Instruments([Instrument(venue, n, n, "perpetual") for n in _NAMES])
    return lambda raw: usdm.parse(raw, table)


_CRYPTOFEED = {"aggTrade": "trades", "bookTicker": "ticker"}
"""Our kinds and its channels; continuousKline it does not know."""


def _cryptofeed(kind: str) -> Parse | None:
    try:
        from cryptofeed.exchanges import BinanceFutures
        from cryptofeed.symbols import Symbol, Symbols
    except ImportError:
        return None
    channel = _CRYPTOFEED[kind]
    names = {Symbol(s[:-4], "USDT", type="perpetual").normalized: s for s in _NAMES}
    Symbols.set(BinanceFutures.id, names, {"instrument_type": dict.fromkeys(names, "perpetual")})

    async def nothing(_event: Any, _at: float) -> None: ...

    feed = BinanceFutures(symbols=list(names), channels=[channel], callbacks={channel: nothing})

    def parse(raw: bytes) -> None:
        text = raw.decode()  # what its WebSocket hands over
        try:
            feed.message_handler(text, None, 0.0).send(None)
        except StopIteration:
            return
        raise RuntimeError("it waits for something")

    return parse


def messages(number: int) -> dict[str, list[bytes]]:
    """By kind: so many messages of twenty symbols, in the exchanges' own forms."""
    made: dict[str, Callable[[int, str], dict[str, Any]]] = {
        "aggTrade": _agg_trade,
        "continuousKline": _kline,
        "bookTicker": _top,
        "depth, 2 x 20 levels": _depth,
        "OKX trades": _okx_trade,
        "OKX books, 2 x 20 levels": _okx_book,
    }
    return {
        kind: [
            json.dumps(make(n, _NAMES[n % len(_NAMES)]), separators=(",", ":")).encode()
            for n in range(number)
        ]
        for kind, make in made.items()
    }


def _price(n: int) -> str:
    return f"{66440.7 + n % 50 * 0.1:.1f}"


def _agg_trade(n: int, name: str) -> dict[str, Any]:
    return {"stream": f"{name.lower()}@aggTrade", "data": {
        "e": "aggTrade", "E": _T0 + n, "a": n + 1, "s": name, "p": _price(n),
        "q": f"0.{n % 97:03d}", "nq": "0.1", "f": n * 2, "l": n * 2 + 1, "T": _T0 + n,
        "m": bool(n % 2), "st": 1,
    }}  # fmt: skip


def _kline(n: int, name: str) -> dict[str, Any]:
    return {"stream": f"{name.lower()}_perpetual@continuousKline_1m", "data": {
        "e": "continuous_kline", "E": _T0 + n, "ps": name, "ct": "PERPETUAL", "k": {
            "t": 1_759_999_980_000, "T": 1_760_000_039_999, "i": "1m", "f": 1, "L": 2, "s": name,
            "o": "66440.7", "c": _price(n), "h": "66450.1", "l": "66430.0", "v": f"{n * 0.13:.3f}",
            "n": n, "x": False, "q": f"{n * 11.13:.5f}", "V": f"{n * 0.1:.3f}",
            "Q": f"{n * 7.1:.5f}", "B": "0",
        }, "s": name, "st": 1}}  # fmt: skip


def _top(n: int, name: str) -> dict[str, Any]:
    return {"stream": f"{name.lower()}@bookTicker", "data": {
        "e": "bookTicker", "u": n + 1, "s": name, "b": _price(n), "B": "3.125", "a": _price(n + 1),
        "A": "1.250", "T": _T0 + n, "E": _T0 + n, "st": 1,
    }}  # fmt: skip


def _levels(n: int, *more: str) -> list[list[str]]:
    return [[f"{66440.7 + level * 0.1:.1f}", f"{(n + level) % 97 / 8:.3f}", *more]
            for level in range(20)]  # fmt: skip


def _depth(n: int, name: str) -> dict[str, Any]:
    return {"stream": f"{name.lower()}@depth@100ms", "data": {
        "e": "depthUpdate", "E": _T0 + n, "T": _T0 + n, "s": name, "U": 10 * n + 1,
        "u": 10 * n + 10, "pu": 10 * n, "b": _levels(n), "a": _levels(n + 1), "st": 1,
    }}  # fmt: skip


def _okx_trade(n: int, name: str) -> dict[str, Any]:
    native = f"{name[:-4]}-USDT"
    return {"arg": {"channel": "trades", "instId": native}, "data": [{
        "instId": native, "tradeId": str(n + 10), "px": _price(n), "sz": f"0.{n % 97:03d}",
        "side": "sell" if n % 2 else "buy", "ts": str(_T0 + n), "count": "3", "seqId": n,
    }]}  # fmt: skip


def _okx_book(n: int, name: str) -> dict[str, Any]:
    arg = {"channel": "books", "instId": f"{name[:-4]}-USDT"}
    return {"arg": arg, "action": "update",
            "data": [{"asks": _levels(n, "0", "4"), "bids": _levels(n + 1, "0", "2"),
                      "ts": str(_T0 + n), "prevSeqId": n, "seqId": n + 1}]}  # fmt: skip
