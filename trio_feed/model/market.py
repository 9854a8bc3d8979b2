"""What is traded, and what exchanges tell of it beside candles."""

from decimal import Decimal

from attrs import frozen


@frozen
class Bounds:
    """What the venue takes in one order; 0: it does not say, or does not check.  ``market_*``: of
    market orders.  ``min_worth``: price x quantity."""

    min_price: Decimal = Decimal(0)
    max_price: Decimal = Decimal(0)
    min_size: Decimal = Decimal(0)
    max_size: Decimal = Decimal(0)
    market_min: Decimal = Decimal(0)
    market_max: Decimal = Decimal(0)
    min_worth: Decimal = Decimal(0)


@frozen
class Instrument:
    """Something that is traded.  ``symbol`` is the unified name (``BTCUSDT``), ``native`` the
    venue's own (``BTC-USDT``).  ``contract_size`` is how much of the base one unit of quantity is
    (1 where quantities are in base already).  ``trading`` is False while halted or not yet listed.
    ``unavailable`` says why the instrument cannot be served although it is listed; empty: it can.
    """

    venue: str
    symbol: str
    native: str
    kind: str
    """spot, perpetual, future, option, token"""
    base: str = ""
    quote: str = ""
    contract_size: Decimal = Decimal(1)
    tick_size: Decimal = Decimal(0)
    step_size: Decimal = Decimal(0)
    trading: bool = True
    unavailable: str = ""
    bounds: Bounds = Bounds()


MOST_AGGREGATED = 1_000_000
"""More trades in one aggregate are a misread number: the order books do not hold so many orders."""


@frozen
class Trade:
    """A trade, or an aggregate of those of one taker order at one price.

    ``trade_id`` is the venue's id of it (consecutive within a stream where the venue's are),
    ``first_id``..``last_id`` the trades inside.  ``quantity`` is in base currency.
    ``quote_quantity`` is set where ``quantity`` was computed from it (inverse contracts, rounded);
    None: it is price x quantity.  ``buyer_is_maker`` True means that the taker sold.
    """

    symbol: str
    trade_id: int
    first_id: int
    last_id: int
    price: Decimal
    quantity: Decimal
    time_ms: int
    buyer_is_maker: bool
    event_ms: int = 0
    quote_quantity: Decimal | None = None
    """Its worth in quote currency, where that is not price x quantity to the last digit."""


@frozen
class Price:
    """A price that came without a quantity.  ``key`` names the event it came from, once for all;
    ``time_ms`` is the venue's time of it, 0 where it gives none.  ``position`` orders a venue's
    prices as the chain does (0: not known): a smaller one happened earlier."""

    symbol: str
    price: Decimal
    key: str
    time_ms: int = 0
    position: int = 0


@frozen
class TickerDetails:
    """What Binance's full tickers say beyond what every venue does: the last trade's quantity, the
    average weighted by volume, the close 24 h ago (spot only), both ends of the window (unix ms),
    its first and last trade and how many there are."""

    last_size: Decimal
    average: Decimal
    previous_close: Decimal | None
    open_ms: int
    close_ms: int
    first_id: int
    last_id: int
    trades: int


@frozen
class Ticker:
    """Rolling 24 h statistics; None where the venue does not say.  Volumes: base and quote."""

    symbol: str
    last: Decimal
    open: Decimal | None
    high: Decimal | None
    low: Decimal | None
    volume: Decimal | None
    quote_volume: Decimal | None
    bid: Decimal | None = None
    bid_size: Decimal | None = None
    ask: Decimal | None = None
    ask_size: Decimal | None = None
    event_ms: int = 0
    details: TickerDetails | None = None


@frozen
class BookTop:
    """Best bid and ask; None on a side that is empty.  ``update_id`` grows with each one."""

    symbol: str
    bid: Decimal | None
    bid_size: Decimal | None
    ask: Decimal | None
    ask_size: Decimal | None
    update_id: int = 0
    event_ms: int = 0


Level = tuple[Decimal, Decimal]
"""Price and quantity in base currency; quantity 0 removes the level."""


@frozen
class BookUpdate:
    """A change of an order book, or the whole of it.

    ``first_id``..``last_id`` are the updates inside, ``previous_id`` the last one before them
    (None where the venue does not say).  ``snapshot``: replaces what was there.  ``partial``: the
    best levels only, complete in itself and without sequence.  ``checksum`` None: there is none.
    """

    symbol: str
    first_id: int
    last_id: int
    previous_id: int | None
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    snapshot: bool = False
    partial: bool = False
    event_ms: int = 0
    checksum: int | None = None


@frozen
class MarkPrice:
    """Mark price of a derivative, its index, and the next funding.  ``settle``: the settlement
    price that is estimated now, where the venue says it."""

    symbol: str
    mark: Decimal
    index: Decimal | None
    funding_rate: Decimal | None
    next_funding_ms: int
    event_ms: int
    settle: Decimal | None = None


@frozen
class OpenInterest:
    """Contracts that are open, as an amount of the base currency.  ``worth``: in US dollars, where
    the venue says it.  ``time_ms``: of the venue's count."""

    symbol: str
    amount: Decimal
    worth: Decimal | None
    time_ms: int


@frozen
class Liquidation:
    """A forced order; ``sold`` True: a long position was closed."""

    symbol: str
    sold: bool
    price: Decimal
    average_price: Decimal
    quantity: Decimal
    time_ms: int
