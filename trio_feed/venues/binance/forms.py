"""The forms of Binance's messages, spot and USD-M; fields that nothing uses are left out.

Sources: github binance/binance-spot-api-docs (2026-07-21), binance-connector-python 17.2.0
(2026-08-19).  Fields with a default are absent on one of the two markets or before 2026.
"""

from typing import Annotated

import msgspec

from ...model import INT_MAX

Whole = Annotated[int, msgspec.Meta(ge=-1, le=INT_MAX)]
"""Ids, times, counts: what the store can hold.  -1 is Binance's way to say that there is none."""
Count = Annotated[int, msgspec.Meta(ge=0, le=INT_MAX)]

UM = 1
"""``st`` of USD-M; 2 is COIN-M, whose instruments share the merged streams since 2026-06-30."""


class Form(msgspec.Struct):
    """Base of the wire forms."""


class Bar(Form):
    t: Whole
    i: str
    o: str
    h: str
    l: str  # noqa: E741 - the exchange's name
    c: str
    v: str
    q: str
    n: Count
    x: bool
    V: str
    Q: str
    f: Whole = -1
    L: Whole = -1


class KlineFrame(Form):
    """``kline``: of a symbol; ``f`` and ``L`` are its first and last trade."""

    E: Whole
    s: str
    k: Bar
    st: int = UM


class ContinuousFrame(Form):
    """``continuous_kline``: of a pair and a contract type; ``f`` and ``L`` are update ids."""

    E: Whole
    ps: str
    ct: str
    k: Bar
    st: int = UM


class AggRow(Form):
    a: Whole
    p: str
    q: str
    f: Whole
    l: Whole  # noqa: E741 - the exchange's name
    T: Whole
    m: bool
    s: str = ""
    E: Whole = 0
    st: int = UM


class TradeFrame(Form):
    E: Whole
    s: str
    t: Whole
    p: str
    q: str
    T: Whole
    m: bool
    X: str = "MARKET"
    st: int = UM


class TickerFrame(Form):
    """24hrTicker and 24hrMiniTicker; spot's full one also has the best bid and ask."""

    E: Whole
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
    Q: str | None = None
    w: str | None = None
    x: str | None = None
    O: Whole = 0  # noqa: E741 - the exchange's name
    C: Whole = 0
    F: Whole = -1
    L: Whole = -1
    n: Count = 0


class TopFrame(Form):
    """bookTicker; spot's has neither event type nor time."""

    u: Whole
    s: str
    b: str
    B: str
    a: str
    A: str
    E: Whole = 0
    st: int = UM


Levels = list[tuple[str, str]]


class DepthFrame(Form):
    """depthUpdate: changes on both markets, and USD-M's best levels."""

    E: Whole
    s: str
    U: Whole
    u: Whole
    b: Levels
    a: Levels
    pu: Whole | None = None
    st: int = UM


class Depth(Form):
    """A REST snapshot, and spot's best levels, which carry no symbol."""

    lastUpdateId: Whole
    bids: Levels
    asks: Levels
    E: Whole = 0


class MarkFrame(Form):
    E: Whole
    s: str
    p: str
    T: Whole
    i: str | None = None
    P: str | None = None
    r: str | None = None
    st: int = UM


class Forced(Form):
    s: str
    S: str
    q: str
    p: str
    ap: str
    T: Whole
    st: int = UM


class ForceFrame(Form):
    """``st`` stands outside of ``o``, or in it."""

    o: Forced
    st: int = UM


class KlineEvent(KlineFrame, tag_field="e", tag="kline"):
    pass


class ContinuousEvent(ContinuousFrame, tag_field="e", tag="continuous_kline"):
    pass


class AggEvent(AggRow, tag_field="e", tag="aggTrade"):
    pass


class TradeEvent(TradeFrame, tag_field="e", tag="trade"):
    pass


class TickerEvent(TickerFrame, tag_field="e", tag="24hrTicker"):
    pass


class MiniTickerEvent(TickerFrame, tag_field="e", tag="24hrMiniTicker"):
    pass


class TopEvent(TopFrame, tag_field="e", tag="bookTicker"):
    pass


class DepthEvent(DepthFrame, tag_field="e", tag="depthUpdate"):
    pass


class MarkEvent(MarkFrame, tag_field="e", tag="markPriceUpdate"):
    pass


class ForceEvent(ForceFrame, tag_field="e", tag="forceOrder"):
    pass


AnyEvent = (
    KlineEvent | ContinuousEvent | AggEvent | TradeEvent | TickerEvent | MiniTickerEvent
    | TopEvent | DepthEvent | MarkEvent | ForceEvent
)  # fmt: skip
"""Every event that names its type, read in one pass."""


class Combined(Form):
    """An event in the wrapper of ``/stream``."""

    stream: str
    data: AnyEvent


NOTHING = msgspec.Raw()


class Envelope(Form):
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
