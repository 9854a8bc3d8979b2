"""What every venue file offers, and the values that go in and out of it.

A venue is a module with the members of :class:`Venue`, in that order, without I/O: it says which
URLs to open, what to send, what came in, and what to ask by REST.  Names on the wire are the
venue's own; everything that leaves a venue carries unified symbols from the instrument table.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from attrs import frozen

from ..core.streams import BookRule, Data, Kind, Stream, TradeIds
from ..model import BookUpdate, Instrument, Interval, Kline, OpenInterest, Trade
from ..rest_dialects import RestDialect
from ..transactions import Answer, Question, Transaction
from .instruments import Instruments
from .rows import Rows


@frozen
class Plan:
    """One connection: the URL, its streams, and the frames to send once it is open, each with the
    names that its acknowledgements will carry (see :class:`Ack`).  Frames are sent in order, no
    faster than the venue's ``FRAMES`` and ``OPERATIONS``."""

    url: str
    streams: tuple[Stream, ...]
    subscribe: tuple["Frame", ...] = ()


@frozen
class Frame:
    """A control frame, and what its acknowledgements will be called: one name for each operation
    that it is counted as."""

    text: str
    acks: frozenset[str]


@frozen
class Heartbeat:
    """An application-level ping: ``text`` after ``after_s`` without any message; the answer parses
    to :class:`Pong` and must come within the connection's pong timeout."""

    text: str
    after_s: float


@frozen
class Ack:
    """The exchange's answer to a control frame.

    ``name`` is what the frame's ``acks`` hold; empty where the answer does not say whose it is.
    ``error`` is empty when the exchange agreed.  ``stream_only``: the refusal is about single
    streams and the connection is fine.
    """

    name: str
    error: str = ""
    stream_only: bool = False


@frozen
class Pong:
    """The answer to a :class:`Heartbeat`."""


@frozen
class Ignored:
    """A message of a known kind that nothing here uses (yet), or of an instrument that is not in
    the table."""

    kind: str


@frozen
class GoingAway:
    """The exchange will close this connection soon."""


Event = Data | Transaction | Ack | Pong | Ignored | GoingAway


@frozen
class RestQuestion:
    """A GET: path, query parameters, request weight.

    ``until_ms``: the answer cannot hold rows that open there or later, however empty it is; None:
    it holds the next rows wherever they are.  ``body`` is not None: a POST of this JSON to the base
    URL itself instead (JSON-RPC; ``path`` then is the method's name, for the log).  Only what may
    be asked twice without harm is a question.
    """

    path: str
    params: Mapping[str, str | int]
    weight: int = 1
    until_ms: int | None = None
    body: bytes | None = None


@runtime_checkable
class ChainVenue(Protocol):
    """A venue whose prices are repaired.  While ``chain`` its ``parse`` gives a whole
    :class:`.Transaction` and not its prices.  ``parse_answer`` raises BadMessage."""

    NAME: str

    @property
    def chain(self) -> bool: ...

    def question(self, question: Question) -> RestQuestion: ...

    def parse_answer(self, question: Question, body: bytes, instruments: Instruments) -> Answer: ...


@runtime_checkable
class OpenInterestVenue(Protocol):
    """A venue that is asked for open interest; ``question`` None: of this instrument there is none.
    ``parse_open_interest`` raises BadMessage."""

    def open_interest_question(self, instrument: Instrument) -> RestQuestion | None: ...

    def parse_open_interest(self, body: bytes, instrument: Instrument) -> OpenInterest: ...


class Venue(Protocol):
    """A venue module.

    ``INTERVALS`` are the candles it streams and answers by REST.  ``KINDS`` are the streams it
    has, and what it is asked for again and again (:data:`.POLLED`); ``stream`` raises ValueError
    for another than these streams, so that one of unknown kind is refused before anything is
    dialled.  ``BOOK_RULE`` None: no books.  ``LISTED`` False: it has no list of
    instruments, any symbol goes.  ``parse`` and the ``parse_*`` raise BadMessage only; those that
    read lists return :class:`Rows`, with the rows that cannot be read beside the others.
    """

    NAME: str
    WEBSOCKET_URL: str
    REST_URL: str
    KINDS: frozenset[Kind]
    INTERVALS: frozenset[Interval]
    BOOK_RULE: BookRule | None
    BOOK_SNAPSHOT_LEVELS: int | None
    """Levels a side that a snapshot by REST holds, None where the book is whole."""
    DIALECT: RestDialect
    """How it counts and refuses by REST."""
    HEARTBEAT: Heartbeat | None
    LISTED: bool
    DIALS: tuple[int, float]
    """Connections that may be opened per so many seconds, from one IP."""
    FRAMES: tuple[int, float]
    """Frames of any kind that one connection may send per so many seconds, pongs included."""
    OPERATIONS: tuple[int, float] | None
    """Subscriptions that one connection may ask for per so many seconds; None: any number."""
    HIGH_RATES: bool
    """Its streams carry thousands of messages a second: they get the fast WebSocket transport."""
    SHARES: str
    """Whose budgets these are: venues of one exchange that it counts together have the same."""
    BURST_S: float
    """How many seconds' worth of the REST budget may be spent at once."""
    TRADE_KIND: Kind
    """The stream that candles are built from: AGG_TRADE, TRADE or PRICE."""
    TRADE_IDS: TradeIds
    """What ``Trade.trade_id`` of the ``TRADE_KIND`` stream proves."""
    PAGE: int
    """Most candles in one answer."""
    BEGAN_MS: int
    """No candle of the exchange opens before this; questions are clamped to it."""

    def own_form(self, symbol: str) -> str:
        """A symbol as people bring it from elsewhere, in the form that this venue knows; one that
        may be the venue's comes back as it is."""
        ...

    def stream(
        self, kind: Kind, instrument: Instrument, interval: Interval | None = None
    ) -> Stream: ...

    def plan(self, base_url: str, streams: Sequence[Stream], limit: int) -> list[Plan]:
        """Streams -> connections of at most ``limit`` streams each, within the venue's limits."""

    def parse(self, raw: str | bytes, instruments: Instruments) -> Sequence[Event]:
        """One WebSocket message -> what it says, in order."""

    def instruments_questions(self) -> list[RestQuestion]: ...

    def parse_instruments(self, body: bytes) -> Rows[Instrument]: ...

    def klines_question(
        self, instrument: Instrument, interval: Interval, start_ms: int, bars: int, now_ms: float
    ) -> RestQuestion:
        """The ``bars`` (at least 1) candles that open at ``start_ms`` or later, and the one behind
        them, up to ``PAGE`` in all.  Size and weight follow ``bars``."""

    def parse_klines(self, body: bytes, instrument: Instrument) -> Rows[Kline]:
        """Ascending, each marked closed or not.  A row with further columns is welcome."""

    def trades_question(self, instrument: Instrument, from_id: int) -> RestQuestion | None:
        """Trades of the ``TRADE_KIND`` from an id on; None where the venue cannot say."""

    def parse_trades(self, body: bytes, instrument: Instrument) -> Rows[Trade]:
        """Ascending by id."""

    def latest_question(
        self, instrument: Instrument, interval: Interval | None
    ) -> RestQuestion | None:
        """The newest candle of an interval, or (None) the newest trade of the ``TRADE_KIND``, as
        cheaply as it goes; None where the venue cannot say."""

    def book_question(self, instrument: Instrument) -> RestQuestion | None: ...

    def parse_book(self, body: bytes, instrument: Instrument) -> BookUpdate: ...
