"""Lines of the log about candles, with what they count.  Pure."""

from collections.abc import Sequence

from ..model import Hole, Kline, Series
from .effects import CandleNews, Report


def closed(news: CandleNews) -> Report:
    """A candle closed, or a closed one has another value."""
    kline = news.kline
    if news.revision:
        fields = {"stream": str(news.series), "time": kline.open_ms}
        return Report("candle.revised", "warning", fields, "revisions")
    source = kline.source.value
    fields = {
        "stream": str(news.series),
        "time": kline.open_ms,
        "close": str(kline.close),
        "source": source,
    }
    return Report("candle.closed", "debug", fields, "candles_closed", (source,))


def disputed(series: Series, rows: Sequence[Kline]) -> Report:
    """Closed candles (at least one) that another node told otherwise than we would have."""
    fields = {
        "stream": str(series),
        "candles": len(rows),
        "first_ms": rows[0].open_ms,
        "last_ms": rows[-1].open_ms,
    }
    return Report("candle.disputed", "warning", fields)


def filled(event: str, series: Series, rows: Sequence[Kline]) -> Report:
    """Closed candles (at least one) that came by REST."""
    fields = {
        "stream": str(series),
        "candles": len(rows),
        "first_ms": rows[0].open_ms,
        "last_ms": rows[-1].open_ms,
    }
    return Report(event, "info", fields)


def hole(series: Series, found: Hole, candles: int) -> Report:
    """The exchange itself has no candles there."""
    fields = {
        "stream": str(series),
        "candles": candles,
        "first_ms": found.first_ms,
        "last_ms": found.last_ms,
    }
    return Report("candle.hole", "warning", fields, "candle_holes", amount=float(candles))


def unusual_grid(series: Series, anchor_ms: int) -> Report:
    """Its candles do not open where those of nearly all series do."""
    fields = {"stream": str(series), "opens_at_ms": anchor_ms}
    return Report("grid.unusual", "info", fields)
