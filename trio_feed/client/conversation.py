"""What a client says and makes of the answers, over any number of connections.  Pure, no I/O.

One request at a time: the server answers in order, and its errors do not say what they are about.
So the next request is sent when the last one has been answered.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, assert_never

from attrs import field, frozen

from ..errors import NetworkError, TrioFeedError
from ..model import Channel
from ..settings import Secret
from . import wire
from .candles import PAGE_ROWS, Candles, Outcome
from .channel import ChannelSubscription
from .messages import ClientMessage, History, ServerError, Stream, StreamStatus, TokenExpires
from .private import Private

_MALFORMED, _REFUSED, _UNAUTHENTICATED = 1001, 1002, 1004


class AuthRefused(TrioFeedError):
    """The server does not accept the token (any more)."""


class SentAway(NetworkError):
    """The server wants this client to come back ``after_s`` seconds later."""

    def __init__(self, after_s: float) -> None:
        super().__init__("the server asked to reconnect")
        self.after_s = after_s


@frozen
class _Opening:
    """Begin a subscription, on this connection."""

    subscription: Candles | ChannelSubscription


@frozen
class _Ending:
    stream: Stream


@frozen
class _Filling:
    """What a subscription missed, from ``start_s`` on."""

    subscription: Candles
    start_s: int


@frozen
class _Question:
    """A history that the consumer wants."""

    stream: Stream
    fields: dict[str, Any]


@frozen
class _Auth:
    fields: dict[str, Any] = field(repr=False)


_Request = _Opening | _Ending | _Filling | _Question | _Auth


class Conversation:
    """:meth:`connected`, then by turns :meth:`next_request` and :meth:`take`, then :meth:`lost`."""

    def __init__(self) -> None:
        self._subscriptions: dict[Stream, Candles | ChannelSubscription] = {}
        self._by_id: dict[str, Candles | ChannelSubscription] = {}
        """Those that were asked for on this connection."""
        self._private: Private | None = None
        self._wanted: deque[_Request] = deque()
        self._open: _Request | None = None
        self._later: list[_Request] = []
        self._up = False

    def __repr__(self) -> str:
        state = "up" if self._up else "down"
        return f"<Conversation {state}, {len(self._subscriptions)} subscriptions>"

    @property
    def streams(self) -> list[Stream]:
        return list(self._subscriptions)

    def authenticate(self, token: Secret) -> None:
        """From now on this is the token that is shown."""
        if self._private is None:
            self._private = Private(token)
        self._private.token = token
        if self._up:
            self._wanted.append(_Auth(self._private.opening()))

    def subscribe(self, subscription: Candles | ChannelSubscription) -> None:
        """Raises ValueError where there is one of that stream."""
        if subscription.stream in self._subscriptions:
            raise ValueError(f"there is a subscription to {subscription.stream}")
        self._subscriptions[subscription.stream] = subscription
        if self._up:
            self._wanted.append(_Opening(subscription))

    def unsubscribe(self, stream: Stream) -> None:
        """Nothing of it comes any more.  Raises KeyError where there is no such subscription."""
        subscription = self._subscriptions.pop(stream)
        self._wanted = deque(_without(subscription, self._wanted))
        self._later = list(_without(subscription, self._later))
        if self._by_id.pop(_id(stream), None) is subscription:
            self._wanted.append(_Ending(stream))

    def ask(self, stream: Stream, fields: dict[str, Any]) -> None:
        """``fields``: limit, from, to.  Kept until there is an answer, whatever happens."""
        self._wanted.append(_Question(stream, fields))

    def connected(self) -> None:
        """A new connection: everything that shall be on it is asked for."""
        questions = [request for request in self._wanted if isinstance(request, _Question)]
        auth = [_Auth(self._private.opening())] if self._private is not None else []
        openings = [_Opening(s) for s in self._subscriptions.values()]
        self._wanted = deque([*auth, *openings, *questions])
        self._up = True

    def lost(self) -> None:
        """The connection has ended."""
        if isinstance(self._open, _Question):
            self._wanted.appendleft(self._open)
        self._open, self._up = None, False
        self._later.clear()
        self._by_id.clear()
        if self._private is not None:
            self._private.lost()
        for subscription in self._subscriptions.values():
            subscription.lost()

    def retry(self) -> None:
        """Ask again what the server could not do; to be called now and then."""
        self._wanted.extend(self._later)
        self._later.clear()

    def next_request(self) -> dict[str, Any] | None:
        """What is to be sent now; None while an answer is due, or where nothing is wanted."""
        if self._open is not None or not self._wanted or not self._up:
            return None
        request = self._open = self._wanted.popleft()
        match request:
            case _Opening(subscription):
                stream = subscription.stream
                self._by_id[_id(stream)] = subscription
                names = {**_names(stream), "subscription_id": _id(stream)}
                return {"type": "subscribe", **names, **subscription.opening()}
            case _Ending(stream):
                return {"type": "unsubscribe", **_names(stream), "subscription_id": _id(stream)}
            case _Question(stream, fields):
                return {"type": "history", **_names(stream), **fields}
            case _Filling(subscription, start_s):
                rows = {"from": start_s, "limit": PAGE_ROWS}
                return {"type": "history", **_names(subscription.stream), **rows}
            case _Auth(fields):
                return {"type": "auth", **fields}
        assert_never(request)

    def take(self, text: str | bytes) -> list[ClientMessage]:
        """One message of the server.

        Raises OutOfStep, SentAway, BadMessage: nothing more can come of this connection; and
        AuthRefused: nor of any other.
        """
        message = wire.parse(text)
        match message:
            case None:
                return []
            case (
                wire.KlineData()
                | wire.TickerData()
                | wire.TradeData()
                | wire.BookData()
                | wire.BboData()
                | wire.MarkPriceData()
                | wire.LiquidationData()
                | wire.OpenInterestData()
            ):
                return self._update(message)
            case wire.HistoryData(page):
                return self._history(page)
            case wire.Confirmed(answer):
                return self._confirmed(answer)
            case wire.Unsubscribed():
                self._answered(_Ending)
                return []
            case wire.StreamStatusData(status):
                return self._status(status)
            case wire.Error(code, problem):
                return self._refused(code, problem)
            case wire.AuthSuccess():
                self._answered(_Auth)
                return self._private.accepted(message) if self._private is not None else []
            case wire.AuthExpiring(user_id, expires_ms):
                return [TokenExpires(user_id, expires_ms)]
            case wire.OrderUpdate() | wire.PrivateTrade() | wire.BalanceUpdate() | wire.Broadcast():
                return self._private.event(message) if self._private is not None else []
            case wire.Reconnect(after_ms):
                raise SentAway(after_ms / 1000)
        assert_never(message)

    def _update(self, message: wire.Update) -> list[ClientMessage]:
        subscription = self._by_id.get(message.data.subscription_id or "")
        if isinstance(subscription, ChannelSubscription):
            return subscription.update(message.data)
        if isinstance(subscription, Candles) and isinstance(message, wire.KlineData):
            return self._candles(subscription, subscription.update(message.data))
        return []  # the last messages of one that has ended

    def _history(self, page: wire.Page) -> list[ClientMessage]:
        match self._open:
            case _Opening(Candles() as candles):
                outcome = candles.history(page)
                if candles.answered:
                    self._open = None
                return self._candles(candles, outcome)
            case _Filling(candles, start_s):
                self._open = None
                return self._candles(candles, candles.page(start_s, page))
            case _Question(stream):
                self._open = None
                rows = tuple(row.kline() for row in page.data)
                return [History(stream, page.exchange, rows, page.has_more, requested=True)]
        return []

    def _confirmed(self, answer: wire.Answer) -> list[ClientMessage]:
        match self._open:
            case _Opening(Candles() as candles):
                outcome = candles.confirmed(answer)
                if candles.answered:
                    self._open = None
                return self._candles(candles, outcome)
            case _Opening(ChannelSubscription() as channel):
                self._open = None
                events = channel.confirmed(answer)
                return events if self._current(channel) else []
        return []

    def _candles(self, candles: Candles, outcome: Outcome) -> list[ClientMessage]:
        if not self._current(candles):
            return []
        self._wanted.extend(_Filling(candles, start_s) for start_s in outcome.fetches)
        return outcome.events

    def _current(self, subscription: Candles | ChannelSubscription) -> bool:
        """It has not been ended while an answer was under way."""
        return self._subscriptions.get(subscription.stream) is subscription

    def _status(self, status: wire.Status) -> list[ClientMessage]:
        subscription = self._by_id.get(status.subscription_id or "")
        if subscription is None:
            return []
        return [
            StreamStatus(
                subscription.stream, status.status, status.reason, status.first_s, status.last_s
            )
        ]

    def _refused(self, code: int, problem: str) -> list[ClientMessage]:
        """An error: of the request that waits for its answer, where there is one."""
        if code == _UNAUTHENTICATED:
            raise AuthRefused(problem)
        request, self._open = self._open, None
        match request:
            case _Opening(subscription):
                if not self._current(subscription):
                    return []
                if code in (_MALFORMED, _REFUSED) and not subscription.served:
                    stream = subscription.stream
                    del self._subscriptions[stream], self._by_id[_id(stream)]
                    return [ServerError(code, problem, stream)]
                self._later.append(request)  # it may be a server that is just starting
                return []
            case _Filling(subscription):
                if self._current(subscription):
                    self._later.append(request)
                return []
            case _Auth() if code != _MALFORMED:
                self._later.append(request)
                return []
            case _Question(stream) | _Ending(stream):
                return [ServerError(code, problem, stream)]
        return [ServerError(code, problem)]

    def _answered(self, kind: type) -> None:
        if isinstance(self._open, kind):
            self._open = None


def _without(
    subscription: Candles | ChannelSubscription, requests: Iterable[_Request]
) -> Iterator[_Request]:
    """The requests that have nothing to do with a subscription."""
    for request in requests:
        if not isinstance(request, _Opening | _Filling) or request.subscription is not subscription:
            yield request


def _names(stream: Stream) -> dict[str, str]:
    names = {"symbol": stream.symbol}
    if stream.channel is not Channel.KLINE:
        names["channel"] = stream.channel.value
    if stream.interval is not None:
        names["interval"] = stream.interval.value
    if stream.exchange is not None:
        names["exchange"] = stream.exchange
    return names


def _id(stream: Stream) -> str:
    """The same in every client, so that the server frames a message once for all of them."""
    return str(stream)
