"""Binance's REST market data out of our store and hub.

A question's other parameters are checked before its symbol is looked up, which may begin to be fed
by that.

What is not kept here (trades of long ago, accounts) is no path of this table and
gets the exchange's own "not supported".  Time rule of lists: chronological; without bounds the
newest, with ``startTime`` the oldest from there, both bounds inclusive.
"""

from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

from ...errors import StoreError
from ...model import (
    BookTop,
    Channel,
    Instrument,
    Interval,
    MarkPrice,
    OpenInterest,
    Ticker,
    Trade,
    plain,
)
from ...push.fanout.topics import Topic
from ...push.mounts import Answerer, Question, Reply, Work
from ...push.protocol import quote
from ..market import MarketData
from . import encoders, errors, rest_windows
from .depth import Shown, number_of
from .errors import BadParameter
from .exchange_info import exchange_info
from .parameters import Parameters, check_case, check_symbol
from .profile import Profile
from .weight import UsedWeight, candles_weight

_DEPTH_LIMITS = (5, 10, 20, 50, 100, 500, 1000)
_MOST_TRADES = 1000

Answer = Callable[[Parameters], Work | Reply]


def answers(
    profile: Profile, market: MarketData, used: UsedWeight, shown: Shown
) -> Mapping[str, Answerer]:
    """By path.  ``shown`` is told the snapshots of books."""
    rest = _Rest(profile, market, shown)
    spot = profile.spot
    table: dict[str, tuple[int, Answer]] = {
        "ping": (1, lambda _: Reply("{}")),
        "time": (1, rest.time),
        "exchangeInfo": (20 if spot else 1, rest.exchange_info),
        "klines": (2 if spot else 0, rest.klines),
        "depth": (5 if spot else 0, rest.depth),
        "trades": (25 if spot else 5, rest.trades),
        "aggTrades": (4 if spot else 20, rest.agg_trades),
        "ticker/24hr": (2 if spot else 1, rest.statistics),
        "ticker/price": (2 if spot else 1, rest.price),
        "ticker/bookTicker": (2, rest.book_ticker),
    }
    if spot:
        table["uiKlines"] = table["klines"]
        table["avgPrice"] = (2, rest.average_price)
        table["ticker"] = (4, rest.window)
    else:
        table["continuousKlines"] = (0, rest.continuous)
        table["openInterest"] = (1, rest.open_interest)
        table["premiumIndex"] = (1, rest.premium_index)
    found = {f"{profile.api}/{name}": row for name, row in table.items()}
    if not spot:
        found["/fapi/v2/ticker/price"] = table["ticker/price"]
        for name in ("ping", "time"):  # python-binance and unicorn ask spot's, whatever the market
            found[f"/api/v3/{name}"] = table[name]
    return {path: rest.answerer(row, used) for path, row in found.items()}


@frozen
class _Rest:
    profile: Profile
    market: MarketData
    shown: Shown

    def answerer(self, row: tuple[int, Answer], used: UsedWeight) -> Answerer:
        weight, answer = row

        def answered(question: Question) -> Work | Reply:
            now_ms = self.market.context.now_ms()
            try:
                if self.market.withheld:
                    return errors.simulated(self.market.venue)
                if errors.wants_microseconds(question.headers.get("x-mbx-time-unit", "")):
                    raise BadParameter(errors.UNSUPPORTED, errors.MILLISECONDS)
                parameters = Parameters(question.query)
                made = answer(parameters)
                used.add(question.host, weight or _weight(parameters), now_ms)
                return made
            except BadParameter as problem:
                return errors.error(problem.code, str(problem), problem.status)

        return answered

    def time(self, _: Parameters) -> Reply:
        return Reply(f'{{"serverTime":{int(self.market.context.now_ms())}}}')

    def exchange_info(self, parameters: Parameters) -> Work:
        """USD-M ignores ``symbol``: it always lists all."""
        wanted = self._wanted(parameters) if self.profile.spot else None
        listed = self.market.instruments() if wanted is None else wanted
        text = exchange_info(self.profile, listed, int(self.market.context.now_ms()))
        return _now(text, len(listed))

    # Candles

    def klines(self, parameters: Parameters) -> Work:
        return self._candles(parameters.mandatory("symbol"), parameters)

    def continuous(self, parameters: Parameters) -> Work:
        pair = parameters.mandatory("pair")
        if parameters.mandatory("contractType") != "PERPETUAL":
            raise BadParameter(-1121, "Invalid symbol.")
        return self._candles(pair, parameters)

    def _candles(self, name: str, parameters: Parameters) -> Work:
        interval = parameters.interval(seconds=self.profile.spot)
        parameters.check_zone(interval)
        limit = parameters.limit(500, self.profile.rows, clamps=self.profile.clamps)
        start, end = parameters.time_ms("startTime"), parameters.time_ms("endTime")
        topic = self._topic(self._instrument(name), interval)

        async def answer() -> Reply:
            try:
                found = await self.market.candles(
                    topic, limit=limit, start_ms=start, end_ms=None if end is None else end + 1
                )
            except StoreError as problem:
                return errors.error(-1001, f"Internal error; {problem}", 503)
            return Reply("[" + ",".join(encoders.row(interval, kline) for kline in found) + "]")

        return Work(limit, answer)

    # Books and trades

    def depth(self, parameters: Parameters) -> Work:
        name, limit = parameters.mandatory("symbol"), parameters.number("limit")
        if self.profile.spot:
            limit = parameters.limit(100, 5000, clamps=True)
        elif limit is None:
            limit = 500
        elif limit not in _DEPTH_LIMITS:
            raise BadParameter(-4021, f"{limit} is not valid depth limit")
        instrument = self._instrument(name)
        topic = self._topic(instrument, Channel.BOOK)
        topic.stream.keep()  # changes from here on have their predecessor
        last = self.market.latest(instrument.symbol, Channel.BOOK)
        if last is None:
            raise BadParameter(-1001, "Internal error; the book is not there yet", 503)
        self.shown.note(instrument.symbol, last, self.market.context.now_ms())
        view, number = last.data, number_of(last.epoch, last.offset)
        assert not isinstance(view, (Ticker, Trade)), "the topic is a book"
        bids, asks = encoders.levels(view.bids[:limit]), encoders.levels(view.asks[:limit])  # type: ignore[union-attr]
        at_ms = view.event_ms or int(last.received_ms)
        times = "" if self.profile.spot else f'"E":{at_ms},"T":{at_ms},'
        return _now(f'{{"lastUpdateId":{number},{times}"bids":{bids},"asks":{asks}}}', limit)

    def trades(self, parameters: Parameters) -> Work:
        spot, name = self.profile.spot, parameters.mandatory("symbol")
        limit = parameters.limit(500, _MOST_TRADES, clamps=spot)
        rows = [encoders.trade_row(t, spot=spot) for t in self._trades(name)[-limit:]]
        return _now("[" + ",".join(rows) + "]", len(rows))

    def agg_trades(self, parameters: Parameters) -> Work:
        """Of those that are kept here; older ones are refused, not left out in silence."""
        spot, name = self.profile.spot, parameters.mandatory("symbol")
        limit = parameters.limit(500, _MOST_TRADES, clamps=spot)
        since, from_id = parameters.time_ms("startTime"), parameters.number("fromId")
        until = parameters.time_ms("endTime")
        found = self._trades(name)
        early = bool(found) and (
            (since is not None and since < found[0].time_ms)
            or (from_id is not None and from_id < found[0].trade_id)
        )
        if early:
            oldest = f"the oldest kept here is {found[0].trade_id} at {found[0].time_ms}"
            raise BadParameter(errors.UNSUPPORTED, f"This operation is not supported. ({oldest})")
        if from_id is not None:
            found = [t for t in found if t.trade_id >= from_id]
        if since is not None:
            found = [t for t in found if t.time_ms >= since]
        if until is not None:
            found = [t for t in found if t.time_ms <= until]
        bounded = since is not None or from_id is not None
        chosen = found[:limit] if bounded else found[-limit:]
        rows = [encoders.agg_row(t, spot=spot) for t in chosen]
        return _now("[" + ",".join(rows) + "]", len(rows))

    def _trades(self, name: str) -> list[Trade]:
        topic = self._topic(self._instrument(name), Channel.TRADE)
        kept = [m for m in self.market.kept(topic) if not self.market.hides(m.source)]
        return [message.data for message in kept if isinstance(message.data, Trade)]

    # Tickers

    def statistics(self, parameters: Parameters) -> Work:
        kind = parameters.text("type") or "FULL"
        if kind not in ("FULL", "MINI"):
            raise BadParameter(-1139, "Invalid ticker type.")
        now_ms, spot, full = int(self.market.context.now_ms()), self.profile.spot, kind == "FULL"

        def write(instrument: Instrument) -> str | None:
            last = self.market.latest(instrument.symbol, Channel.TICKER)
            if last is None or not isinstance(last.data, Ticker):
                return None
            return encoders.statistics(instrument.native, last.data, now_ms, spot=spot, full=full)

        return self._each(parameters, write)

    def window(self, parameters: Parameters) -> Work:
        """Of a rolling window of minutes."""
        rest_windows.check(parameters)
        wanted = self._wanted(parameters)
        if wanted is None:
            parameters.mandatory("symbol")
        return rest_windows.tickers(self.market, parameters, wanted or ())

    def average_price(self, parameters: Parameters) -> Work:
        instrument = self._instrument(parameters.mandatory("symbol"))
        return rest_windows.average_price(self.market, instrument)

    def price(self, parameters: Parameters) -> Work:
        def write(instrument: Instrument) -> str | None:
            for channel in (Channel.TRADE, Channel.TICKER):
                last = self.market.latest(instrument.symbol, channel)
                data = None if last is None else last.data
                price = getattr(data, "price", None) or getattr(data, "last", None)
                if price is not None:
                    at = encoders.event_ms(data)
                    time = "" if self.profile.spot else f',"time":{at}'
                    return f'{{"symbol":{quote(instrument.native)},"price":"{plain(price)}"{time}}}'
            return None

        return self._each(parameters, write)

    def book_ticker(self, parameters: Parameters) -> Work:
        def write(instrument: Instrument) -> str | None:
            last = self.market.latest(instrument.symbol, Channel.BBO)
            if last is None or not isinstance(last.data, BookTop):
                return None
            return encoders.book_ticker_row(instrument.native, last.data, spot=self.profile.spot)

        return self._each(parameters, write)

    def premium_index(self, parameters: Parameters) -> Work:
        def write(instrument: Instrument) -> str | None:
            last = self.market.latest(instrument.symbol, Channel.MARK_PRICE)
            if last is None or not isinstance(last.data, MarkPrice):
                return None
            return encoders.premium_index(instrument.native, last.data)

        return self._each(parameters, write)

    def open_interest(self, parameters: Parameters) -> Work:
        instrument = self._instrument(parameters.mandatory("symbol"))
        self._topic(instrument, Channel.OPEN_INTEREST)

        def write(instrument: Instrument) -> str | None:
            last = self.market.latest(instrument.symbol, Channel.OPEN_INTEREST)
            if last is None or not isinstance(last.data, OpenInterest):
                return None
            return encoders.open_interest(instrument.native, last.data)

        return self._each(parameters, write)

    def _each(self, parameters: Parameters, write: Callable[[Instrument], str | None]) -> Work:
        """One object for ``symbol``, a list for ``symbols`` or none; what nothing is known of yet
        is left out of a list, and refused alone."""
        alone = "symbol" in parameters
        wanted = self._wanted(parameters)
        listed = self.market.instruments() if wanted is None else wanted
        found = [text for text in map(write, listed) if text is not None]
        if alone and not found:
            raise BadParameter(-1001, "Internal error; nothing of it is here (yet)", 503)
        return _now(found[0] if alone else "[" + ",".join(found) + "]", len(listed))

    # Names

    def _wanted(self, parameters: Parameters) -> Sequence[Instrument] | None:
        names = parameters.symbols()
        if names is None and "symbol" in parameters:
            names = [parameters.mandatory("symbol")]
        if names is None:
            return None
        for name in names:
            check_case(name)
        return [self._instrument(name) for name in names]

    def _instrument(self, name: str) -> Instrument:
        check_case(name)
        found = self.market.of_native(name)
        if found is None:
            check_symbol(name)
            raise AssertionError("it raises")
        return found

    def _topic(self, instrument: Instrument, what: Channel | Interval) -> Topic:
        topic = self.market.topic(instrument.symbol, what)
        if topic is None:
            problem = f"{what.value} of {instrument.symbol} is not fed by trio_feed"
            raise BadParameter(errors.UNSUPPORTED, f"This operation is not supported. ({problem})")
        return topic


def _weight(parameters: Parameters) -> int:
    return candles_weight(parameters.number("limit") or 500)


def _now(text: str, rows: int) -> Work:
    """The text is made already; a client that asks for much waits as for other answers."""

    async def answer() -> Reply:
        return Reply(text)

    return Work(rows, answer)
