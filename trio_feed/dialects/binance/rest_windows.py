"""``ticker`` and ``avgPrice`` of spot's REST, out of stored minutes and the open one."""

from collections.abc import Awaitable, Callable, Sequence

from ...errors import StoreError
from ...model import Instrument, Interval
from ...push.mounts import Reply, Work
from ..market import MarketData
from . import errors, windows
from .errors import BadParameter
from .parameters import Parameters

_MOST_SYMBOLS = 100
_MOST_MINUTES = 50_000
"""Read for one question."""
_DAY = "1d"


def window_length(parameters: Parameters) -> int:
    """``windowSize`` in minutes.  Raises BadParameter."""
    found = windows.minutes_of(parameters.text("windowSize") or _DAY)
    if found is None:
        raise BadParameter(-1127, "Invalid windowSize.")
    return found


def tickers(market: MarketData, parameters: Parameters, listed: Sequence[Instrument]) -> Work:
    """Of each in ``listed``; all of them or an error."""
    if not listed or len(listed) > _MOST_SYMBOLS:
        problem = f"Too many symbols: {_MOST_SYMBOLS} are allowed."
        raise BadParameter(-1101, problem)
    kind, minutes = check(parameters)
    alone = "symbol" in parameters
    rows = (minutes + 1) * len(listed)
    if rows > _MOST_MINUTES:
        raise _unsupported(f"{rows} minutes would be read, more than {_MOST_MINUTES}")
    _check(market, listed)

    async def answer() -> Reply:
        now_ms = int(market.context.now_ms())
        texts = []
        for instrument in listed:
            window = await _window(market, instrument, minutes, now_ms)
            if window is None:
                problem = f"1m candles of {instrument.native} do not reach back {minutes} minutes"
                return errors.error(errors.UNSUPPORTED, _words(problem))
            texts.append(windows.answer(instrument.native, window, full=kind == "FULL"))
        return Reply(texts[0] if alone else "[" + ",".join(texts) + "]")

    return Work(rows, lambda: _readable(answer))


def check(parameters: Parameters) -> tuple[str, int]:
    """The type and the minutes that are asked for.  Raises BadParameter."""
    kind = parameters.text("type") or "FULL"
    if kind not in ("FULL", "MINI"):
        raise BadParameter(-1139, "Invalid ticker type.")
    return kind, window_length(parameters)


def average_price(market: MarketData, instrument: Instrument) -> Work:
    """Of one symbol."""
    _check(market, [instrument])

    async def answer() -> Reply:
        topic = market.topic(instrument.symbol, Interval.M1)
        assert topic is not None, "it was checked"
        found = await market.candles(topic, limit=windows.AVERAGE_MINUTES)
        price = windows.average(found)
        if price is None:
            return errors.error(-1001, "Internal error; nothing of it is here (yet)", 503)
        at_ms = found[-1].event_ms or int(market.context.now_ms())
        return Reply(windows.average_answer(price, at_ms))

    return Work(windows.AVERAGE_MINUTES, lambda: _readable(answer))


async def _window(
    market: MarketData, instrument: Instrument, minutes: int, now_ms: int
) -> windows.Window | None:
    topic = market.topic(instrument.symbol, Interval.M1)
    if topic is None:
        return None
    first_ms = windows.begin_ms(now_ms, minutes)
    found = await market.candles(topic, limit=minutes + 2, start_ms=first_ms)
    return windows.window_of(found, first_ms, now_ms)


async def _readable(answer: Callable[[], Awaitable[Reply]]) -> Reply:
    try:
        return await answer()
    except StoreError as problem:
        return errors.error(-1001, f"Internal error; {problem}", 503)


def _check(market: MarketData, listed: Sequence[Instrument]) -> None:
    for instrument in listed:
        if market.topic(instrument.symbol, Interval.M1) is None:
            raise _unsupported(f"1m candles of {instrument.symbol} are not fed by trio_feed")


def _unsupported(problem: str) -> BadParameter:
    return BadParameter(errors.UNSUPPORTED, _words(problem))


def _words(problem: str) -> str:
    return f"This operation is not supported. ({problem})"
