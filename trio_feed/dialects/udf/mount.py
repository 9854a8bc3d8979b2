"""What a push server mounts for UDF: every venue's candles at one URL."""

from collections.abc import Callable, Mapping, Sequence
from math import ceil

from attrs import frozen

from ...core.calendar import length_ms
from ...errors import StoreError
from ...model import Channel, Instrument, Ticker
from ...push.edge.work import Busy
from ...push.fanout.topics import Topic
from ...push.mounts import Mount, Question, Reply, Work
from ...push.problems import NO_PLACE_S
from ..market import MarketData
from . import forms

_MOST_ROWS = 5000
_MOST_QUOTES = 50
_MOST_FOUND = 100
_LATEST_S = 10**11
_SIMULATED = {"X-Trio-Feed-Source": "simulated"}


class BadQuestion(Exception):
    """It is answered with this text and status."""

    def __init__(self, problem: str, status: int = 400) -> None:
        super().__init__(problem)
        self.status = status


def udf_mount(markets: Sequence[MarketData]) -> Mount:
    """``/config``, ``/symbols``, ``/symbol_info``, ``/search``, ``/history``, ``/quotes``,
    ``/time``."""
    server = _Udf(markets)
    label = _SIMULATED if any(market.simulated for market in server.served) else {}
    return Mount("/udf", server.answers(), (), _busy, _no_route, _refuse, lambda _host: label)


def _error(problem: str, status: int = 400, headers: Mapping[str, str] | None = None) -> Reply:
    """Clients read the body whatever the status."""
    return Reply(forms.encoded({"s": "error", "errmsg": problem}), status, headers or {})


def _busy(problem: Busy) -> Reply:
    after = {"Retry-After": str(ceil(problem.retry_after_s))}
    return Reply(forms.encoded({"s": "error", "errmsg": str(problem)}), 429, after)


def _refuse(status: int, problem: str) -> Reply:
    """A request that does not come so far; 503: there is no place for it."""
    again = {"Retry-After": str(NO_PLACE_S)} if status == 503 else {}
    return _error(problem, status, again)


def _no_route(question: Question, status: int) -> Reply:
    return _error(f"{question.path[:100]}: not served", status)


Answer = Callable[[Mapping[str, str]], Work | Reply]


@frozen
class _Udf:
    markets: Sequence[MarketData]

    @property
    def served(self) -> list[MarketData]:
        return [market for market in self.markets if not market.withheld]

    def answers(self) -> dict[str, Callable[[Question], Work | Reply]]:
        table: dict[str, Answer] = {
            "/config": self.config, "/symbols": self.symbols, "/search": self.search,
            "/symbol_info": self.symbol_info,
            "/history": self.history, "/quotes": self.quotes, "/time": self.time,
        }  # fmt: skip
        return {path: self._checked(answer) for path, answer in table.items()}

    def _checked(self, answer: Answer) -> Callable[[Question], Work | Reply]:
        def checked(question: Question) -> Work | Reply:
            if not self.served:
                return _error(
                    "the data is simulated; dialects.udf.simulated_ok = true serves it", 403
                )
            try:
                return answer(dict(question.query))
            except BadQuestion as problem:
                return _error(str(problem), problem.status)

        return checked

    def time(self, _: Mapping[str, str]) -> Reply:
        now_s = int(self.served[0].context.now_ms()) // 1000
        return Reply(str(now_s), media_type="text/plain")

    def config(self, _: Mapping[str, str]) -> Work:
        venues = [market.venue for market in self.served]
        fed = {i for m in self.served for f in m.instruments() for i in m.intervals(f.symbol)}
        return _now(forms.configuration(venues, [*fed]), len(fed))

    def symbols(self, query: Mapping[str, str]) -> Work:
        market, found = self._find(query.get("symbol", ""))
        fed = market.intervals(found.symbol)
        return _now(forms.symbol(found, fed, simulated=market.simulated), 1)

    def symbol_info(self, query: Mapping[str, str]) -> Work:
        """Groups are venues; without one all of them.  What the library resolves by where a server
        wants it; we do not (``supports_group_request``), others may ask."""
        group = query.get("group", "")
        markets = [market for market in self.served if group.lower() in ("", market.venue)]
        if not markets:
            known = " ".join(market.venue for market in self.served)
            raise BadQuestion(f"group: one of {known}", 404)
        listed = [
            (found, market.intervals(found.symbol), market.simulated)
            for market in markets
            for found in market.instruments()
        ]
        return _now(forms.symbol_info(listed), len(listed))

    def search(self, query: Mapping[str, str]) -> Work:
        text, venue = query.get("query", "").upper(), query.get("exchange", "")
        most = min(_whole(query, "limit", 30), _MOST_FOUND)
        kind = query.get("type", "")
        listed = [
            (market, found)
            for market in self.served
            if venue in ("", market.venue) and kind in ("", "crypto")
            for found in market.instruments()
        ]
        matching = [
            forms.match(found, simulated=market.simulated)
            for market, found in listed
            if text in forms.ticker_of(found).upper()
        ]
        return _now(matching[:most], len(listed))

    def history(self, query: Mapping[str, str]) -> Work:
        """``to`` is exclusive; ``countback`` bars before it are given even if they are older than
        ``from``: over a hole a chart gets the bars before it."""
        interval = forms.interval_of(query.get("resolution", ""))
        if interval is None:
            market, found = self._find(query.get("symbol", ""), asks=False)
            raise _no_candles(market, found)
        start_ms, end_ms = _whole(query, "from", 0) * 1000, _whole(query, "to", _LATEST_S) * 1000
        back = _whole(query, "countback", 0)
        if end_ms <= start_ms and not back:
            raise BadQuestion("from: not before to")
        market, found = self._find(query.get("symbol", ""))  # it may begin to be fed by this
        topic = market.topic(found.symbol, interval)
        if topic is None:
            raise _no_candles(market, found)
        between = max(0, end_ms - start_ms) // length_ms(interval) + 1
        limit = min(max(back, between), _MOST_ROWS)
        return Work(limit, lambda: _bars(market, topic, start_ms, end_ms, limit, back))

    def quotes(self, query: Mapping[str, str]) -> Work:
        names = [name for name in query.get("symbols", "").split(",") if name][:_MOST_QUOTES]
        answers = []
        for name in names:
            try:
                market, found = self._find(name)
            except BadQuestion as problem:
                answers.append({"s": "error", "n": name[:100], "errmsg": str(problem)})
                continue
            last = market.latest(found.symbol, Channel.TICKER)
            if last is None or not isinstance(last.data, Ticker):
                problem_text = "no ticker of it is fed, or none came yet"
                answers.append({"s": "error", "n": name, "errmsg": problem_text})
            else:
                simulated = market.simulated
                answers.append(forms.quote(name, found, last.data, simulated=simulated))
        return _now({"s": "ok", "d": answers}, len(names))

    def _find(self, name: str, *, asks: bool = True) -> tuple[MarketData, Instrument]:
        """``venue:SYMBOL``, or the symbol alone, of the first venue that has it.  ``asks`` False:
        one on demand does not begin to be fed by this."""
        venue, _, rest = name.rpartition(":")
        for market in self.served:
            if venue.lower() in ("", market.venue):
                listing = market.listing(market.venue)
                there = market.of_symbol(rest) if asks else listing.of_symbol(rest)
                for known in (there, listing.of_lower(rest.lower()),
                              listing.of_symbol(rest.upper())):  # fmt: skip
                    if known is not None:
                        return market, known
        raise BadQuestion("unknown_symbol", 404)


def _no_candles(market: MarketData, found: Instrument) -> BadQuestion:
    fed = " ".join(forms.resolutions(market.intervals(found.symbol)))
    return BadQuestion(f"resolution: {found.symbol} has {fed or 'no candles'}")


async def _bars(
    market: MarketData, topic: Topic, start_ms: int, end_ms: int, limit: int, back: int
) -> Reply:
    try:
        found = await market.candles(topic, limit=limit, end_ms=end_ms)
    except StoreError as problem:
        return _error(str(problem), 503)
    inside = [kline for kline in found if kline.open_ms >= start_ms]
    shown = found[-back:] if len(inside) < back else inside
    if shown:
        return Reply(forms.encoded(forms.bars(shown)))
    return Reply(forms.encoded(forms.no_bars(found[-1].open_ms if found else None)))


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 11:
        raise BadQuestion(f"{name}: not a whole number")
    return int(text)


def _now(answer: object, rows: int) -> Work:
    text = forms.encoded(answer)

    async def given() -> Reply:
        return Reply(text)

    return Work(rows, given)
