"""The forms of Binance's messages, spot and USD-M; fields that nothing uses are left out.

Sources: github binance/binance-spot-api-docs (2026-07-21), binance-connector-python 17.2.0
(2026-08-19).  Fields with a default are absent on one of the two markets or before 2026.
"""

import msgspec

UM = 1
"""``st`` of USD-M; 2 is COIN-M, whose instruments share the merged streams since 2026-06-30."""


class Wire(msgspec.Struct):
    """Base of the wire forms."""


class Bar(Wire):
    t: int
    i: str
    o: str
    h: str
    l: str  # noqa: E741 - the exchange's name
    c: str
    v: str
    q: str
    n: int
    x: bool


class KlineFrame(Wire):
    E: int
    k: Bar
    s: str = ""
    ps: str = ""
    ct: str = "PERPETUAL"


class AggRow(Wire):
    a: int
    p: str
    q: str
    f: int
    l: int  # noqa: E741 - the exchange's name
    T: int
    m: bool
    s: str = ""
    E: int = 0


class TradeFrame(Wire):
    E: int
    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool


class TickerFrame(Wire):
    """24hrTicker and 24hrMiniTicker; spot's full one also has the best bid and ask."""

    E: int
    s: str
    c: str
    o: str
    h: str
    l: str  # noqa: E741 - the exchange's name
    v: str
    q: str
    st: int = UM
    b: str | None = None
    B: str | None = None
    a: str | None = None
    A: str | None = None


class TopFrame(Wire):
    """bookTicker; spot's has neither event type nor time."""

    u: int
    s: str
    b: str
    B: str
    a: str
    A: str
    E: int = 0
    st: int = UM


Levels = list[tuple[str, str]]


class DepthFrame(Wire):
    """depthUpdate: changes on both markets, and USD-M's best levels."""

    E: int
    s: str
    U: int
    u: int
    b: Levels
    a: Levels
    pu: int | None = None


class Depth(Wire):
    """A REST snapshot, and spot's best levels, which carry no symbol."""

    lastUpdateId: int
    bids: Levels
    asks: Levels
    E: int = 0


class MarkFrame(Wire):
    E: int
    s: str
    p: str
    T: int
    i: str | None = None
    r: str | None = None
    st: int = UM


class Forced(Wire):
    s: str
    S: str
    q: str
    p: str
    ap: str
    T: int


class ForceFrame(Wire):
    o: Forced
    st: int = UM


NOTHING = msgspec.Raw()


class Envelope(Wire):
    """Everything the outside of a message can carry: an event, a combined wrapper, a reply."""

    stream: str | None = None
    data: msgspec.Raw = NOTHING
    e: str | None = None
    id: int | str | None = None
    result: msgspec.Raw = NOTHING
    code: int | None = None
    msg: str | None = None
    error: msgspec.Raw = NOTHING
    u: msgspec.Raw = NOTHING
