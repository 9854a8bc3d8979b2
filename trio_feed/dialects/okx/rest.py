"""OKX's REST market data out of our store and hub.

Lists come newest first between two exclusive bounds: older than ``after``, newer than ``before``.
What is not kept here (trades of long ago, accounts) is refused, never left out in silence.
"""

from collections.abc import Callable, Mapping

from attrs import frozen

from ...errors import StoreError
from ...model import BookView, Channel, Instrument, Interval, MarkPrice, OpenInterest, Ticker, Trade
from ...push.fanout.topics import Topic
from ...push.mounts import Answerer, Question, Reply, Work
from ..market import MarketData
from . import encoders, errors
from .books import MOST_LEVELS, number_of
from .channels import not_fed
from .errors import BadParameter, wrong
from .instruments import instrument_row
from .parameters import Parameters
from .units import BARS, family, inst_type, other_days

Answer = Callable[[Parameters], Work | Reply]
_MOST_CANDLES = 300


def answers(market: MarketData) -> Mapping[str, Answerer]:
    """By path."""
    rest = _Rest(market)
    table: dict[str, Answer] = {
        "public/time": rest.time,
        "public/instruments": rest.instruments,
        "public/mark-price": rest.mark_price,
        "public/funding-rate": rest.funding_rate,
        "public/open-interest": rest.open_interest,
        "market/ticker": rest.ticker,
        "market/tickers": rest.tickers,
        "market/candles": rest.candles,
        "market/history-candles": rest.history_candles,
        "market/trades": rest.trades,
        "market/history-trades": rest.history_trades,
        "market/books": rest.books,
    }
    return {f"/api/v5/{name}": rest.answerer(answer) for name, answer in table.items()}


@frozen
class _Rest:
    market: MarketData

    def answerer(self, answer: Answer) -> Answerer:
        def answered(question: Question) -> Work | Reply:
            if self.market.withheld:
                return errors.simulated(self.market.venue)
            try:
                return answer(Parameters(question.query))
            except BadParameter as problem:
                return errors.error(problem.code, str(problem), problem.status)

        return answered

    def time(self, _: Parameters) -> Reply:
        return Reply(encoders.answer([f'{{"ts":"{int(self.market.context.now_ms())}"}}']))

    def instruments(self, parameters: Parameters) -> Work:
        kind = parameters.inst_type()
        if kind == "OPTION" and not (parameters.text("uly") or parameters.text("instFamily")):
            raise BadParameter("50015", "Either parameter uly or instFamily is required.", 400)
        listed = self._listed(kind, parameters)
        return _now([instrument_row(each) for each in listed])

    # Candles

    def candles(self, parameters: Parameters) -> Work:
        """OKX keeps 1440 of them here; we have no such bound."""
        return self._candles(parameters, closed=False)

    def history_candles(self, parameters: Parameters) -> Work:
        return self._candles(parameters, closed=True)

    def _candles(self, parameters: Parameters, *, closed: bool) -> Work:
        """``closed``: without the open one."""
        interval = BARS.get(parameters.text("bar") or "1m")
        if interval is None:
            raise wrong("bar", other_days(parameters.text("bar")))
        limit = parameters.limit(100, _MOST_CANDLES)
        after, before = parameters.number("after"), parameters.number("before")
        instrument = self._instrument(parameters)
        topic = self._topic(instrument, interval, "bar")

        async def answer() -> Reply:
            try:
                found = await self.market.candles(topic, limit=limit + closed, end_ms=after)
            except StoreError as problem:
                return errors.error("50026", f"System error. Try again later. ({problem})", 500)
            if closed:
                found = [kline for kline in found if kline.closed][-limit:]
            if before is not None:
                found = [kline for kline in found if kline.open_ms > before]
            return Reply(encoders.answer(encoders.candle(instrument, k) for k in reversed(found)))

        return Work(limit, answer)

    # Books and trades

    def books(self, parameters: Parameters) -> Work:
        most, instrument = parameters.levels(MOST_LEVELS), self._instrument(parameters)
        topic = self._topic(instrument, Channel.BOOK, "instId")
        topic.stream.keep()  # changes from here on have their predecessor
        last = self.market.latest(instrument.symbol, Channel.BOOK)
        if last is None or not isinstance(last.data, BookView):
            raise errors.not_yet("the book is not there yet")
        view, number = last.data, number_of(last.epoch, last.offset)
        sides = encoders.sides(instrument, view.bids[:most], view.asks[:most])
        ts = view.event_ms or int(last.received_ms)
        return _now([f'{{{sides},"ts":"{ts}","seqId":{number}}}'], most)

    def trades(self, parameters: Parameters) -> Work:
        limit, instrument = parameters.limit(100, 500), self._instrument(parameters)
        found = self._trades(instrument)[-limit:]
        return _now([encoders.trade(instrument, t, counted=False) for t in reversed(found)])

    def history_trades(self, parameters: Parameters) -> Work:
        """Of those that are kept here; the bounds are ids (``type`` 1) or times (2)."""
        limit = parameters.limit(100, 100)
        kind = parameters.text("type") or "1"
        after, before = parameters.number("after"), parameters.number("before")
        if kind not in ("1", "2"):
            raise wrong("type")
        if kind == "2" and before is not None:
            raise wrong("before")
        instrument = self._instrument(parameters)
        found = self._trades(instrument)
        places = [t.last_id if kind == "1" else t.time_ms for t in found]
        if after is not None and (not places or after <= places[0]):
            oldest = f"the oldest kept here is {found[0].last_id} at {found[0].time_ms}"
            raise wrong("after", oldest if found else "no trades are kept here yet")
        chosen = [
            trade
            for trade, place in zip(found, places, strict=True)
            if (after is None or place < after) and (before is None or place > before)
        ][-limit:]
        return _now([encoders.trade(instrument, t, counted=False) for t in reversed(chosen)])

    def _trades(self, instrument: Instrument) -> list[Trade]:
        topic = self._topic(instrument, Channel.TRADE, "instId")
        kept = [m for m in self.market.kept(topic) if not self.market.hides(m.source)]
        return [message.data for message in kept if isinstance(message.data, Trade)]

    # Tickers, mark prices

    def ticker(self, parameters: Parameters) -> Work:
        return self._alone(self._instrument(parameters), Channel.TICKER, self._ticker)

    def tickers(self, parameters: Parameters) -> Work:
        return _all(self._listed(parameters.inst_type(), parameters), self._ticker)

    def mark_price(self, parameters: Parameters) -> Work:
        """``instType``, or an instrument alone."""
        if parameters.text("instId"):
            instrument = self._instrument(parameters)
            if inst_type(instrument) != "SWAP":
                raise wrong("instId", "spot pairs have no mark price here")
            return self._alone(instrument, Channel.MARK_PRICE, self._mark)
        return _all(self._listed(parameters.inst_type(), parameters), self._mark)

    def funding_rate(self, parameters: Parameters) -> Work:
        """``ANY``: of all swaps."""
        if parameters.mandatory("instId") == "ANY":
            return _all(self._listed("SWAP", parameters), self._funding)
        instrument = self._instrument(parameters)
        if inst_type(instrument) != "SWAP":
            raise wrong("instId")
        return self._alone(instrument, Channel.MARK_PRICE, self._funding)

    def open_interest(self, parameters: Parameters) -> Work:
        """Of an ``instType`` with contracts, or of one instrument of it."""
        kind = parameters.inst_type()
        if kind in ("SPOT", "MARGIN"):
            raise wrong("instType")
        if not parameters.text("instId"):
            return _all(self._listed(kind, parameters), self._interest)
        instrument = self._instrument(parameters)
        if inst_type(instrument) != kind:
            raise wrong("instId")
        return self._alone(instrument, Channel.OPEN_INTEREST, self._interest)

    def _alone(
        self, instrument: Instrument, channel: Channel, write: Callable[[Instrument], str | None]
    ) -> Work:
        self._topic(instrument, channel, "instId")
        row = write(instrument)
        if row is None:
            raise errors.not_yet(f"no {channel.value} of {instrument.native} came yet")
        return _now([row])

    def _ticker(self, instrument: Instrument) -> str | None:
        last = self.market.latest(instrument.symbol, Channel.TICKER)
        if last is None or not isinstance(last.data, Ticker):
            return None
        return encoders.ticker(instrument, last.data, int(last.received_ms))

    def _mark(self, instrument: Instrument) -> str | None:
        last = self.market.latest(instrument.symbol, Channel.MARK_PRICE)
        if last is None or not isinstance(last.data, MarkPrice):
            return None
        return encoders.mark_price(instrument, last.data, int(last.received_ms))

    def _funding(self, instrument: Instrument) -> str | None:
        last = self.market.latest(instrument.symbol, Channel.MARK_PRICE)
        found = None if last is None else last.data
        if last is None or not isinstance(found, MarkPrice) or found.funding_rate is None:
            return None
        return encoders.funding_rate(instrument, found, int(last.received_ms))

    def _interest(self, instrument: Instrument) -> str | None:
        last = self.market.latest(instrument.symbol, Channel.OPEN_INTEREST)
        if last is None or not isinstance(last.data, OpenInterest):
            return None
        return encoders.open_interest(instrument, last.data)

    # Names

    def _listed(self, kind: str, parameters: Parameters) -> list[Instrument]:
        """Of one ``instType``; those that the other parameters leave."""
        name, wanted = parameters.text("instId"), parameters.text("instFamily")
        underlying = parameters.text("uly")

        def fits(each: Instrument) -> bool:
            pair = family(each)
            return (
                inst_type(each) == kind
                and name in ("", "ANY", each.native)
                and wanted in ("", pair)
                and underlying in ("", pair.partition("_")[0])
            )

        return list(filter(fits, self.market.instruments()))

    def _instrument(self, parameters: Parameters) -> Instrument:
        """No instrument has small letters, so that none of those is looked up, by which it might
        begin to be fed."""
        name = parameters.mandatory("instId")
        found = self.market.of_native(name) if name == name.upper() else None
        if found is None:
            raise BadParameter("51001", errors.UNKNOWN_INSTRUMENT)
        return found

    def _topic(self, instrument: Instrument, what: Channel | Interval, name: str) -> Topic:
        topic = self.market.topic(instrument.symbol, what)
        if topic is None:
            raise wrong(name, not_fed(self.market.venue, instrument, what))
        return topic


def _all(listed: list[Instrument], write: Callable[[Instrument], str | None]) -> Work:
    """What nothing is known of yet is left out."""
    return _now([text for text in map(write, listed) if text is not None], len(listed))


def _now(rows: list[str], cost: int | None = None) -> Work:
    """The rows are made already; a client that asks for much waits as for other answers."""

    async def answer() -> Reply:
        return Reply(encoders.answer(rows))

    return Work(len(rows) if cost is None else cost, answer)
