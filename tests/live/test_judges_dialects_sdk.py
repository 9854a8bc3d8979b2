"""Binance's own Python clients, told our addresses only, read what our dialects say.

Run by ``scripts/judges``, which installs them; without them every test here is skipped.  Their
models are generated from Binance's OpenAPI: a field too many or too few is a failure here, besides
what ``SPARED`` names and why.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.judges import complete, judge, run
from support.turned import turned
from test_judges_binance_sdk import FUTURES_STREAMS, SPOT_STREAMS, sdk_client, sdk_streams

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours

SPARED = {
    # Our ledger does not keep it: docs/dialects.md says so.
    "MarkPriceResponse1.interest_rate is missing",
    "CompressedAggregateTradesListResponse.nq is missing",
    "AggregateTradeStreamsResponse.nq is missing",
    "MarkPriceStreamResponse.ap is missing",
    # The exchange sends it and the model does not have it.
    "SymbolOrderBookTickerResponse1 does not know {'lastUpdateId'}",
    "ExchangeInformationResponseSymbolsInner does not know {'permissionSets'}",
    # Of a limit's answer to an order.
    "MyFiltersResponseRateLimitsInner.count is missing",
}


def faults(model: Any) -> set[str]:
    """Of the model or of each in the list."""
    try:
        complete(model)
    except AssertionError as problem:
        return {str(problem).partition("\n")[0]}
    return set()


SPOT_REST: dict[str, Callable[[Any], Any]] = {
    "time": lambda rest: rest.time(),
    "depth": lambda rest: rest.depth("BTCUSDT", limit=5000),
    "agg_trades": lambda rest: rest.agg_trades("BTCUSDT"),
    "trades": lambda rest: rest.get_trades("BTCUSDT"),
    "klines": lambda rest: rest.klines("BTCUSDT", "1m", limit=1000),
    "ui_klines": lambda rest: rest.ui_klines("BTCUSDT", "1m", limit=1000),
    "avg_price": lambda rest: rest.avg_price("BTCUSDT"),
    "ticker": lambda rest: rest.ticker(symbol="BTCUSDT", window_size="1h"),
    "ticker24hr": lambda rest: rest.ticker24hr(symbol="BTCUSDT"),
    "ticker_price": lambda rest: rest.ticker_price(symbol="BTCUSDT"),
    "book_ticker": lambda rest: rest.ticker_book_ticker(symbol="BTCUSDT"),
    "exchange_info": lambda rest: rest.exchange_info(symbol="BTCUSDT"),
}
FUTURES_REST: dict[str, Callable[[Any], Any]] = {
    "time": lambda rest: rest.check_server_time(),
    "depth": lambda rest: rest.order_book("BTCUSDT", limit=1000),
    "agg_trades": lambda rest: rest.compressed_aggregate_trades_list("BTCUSDT"),
    "trades": lambda rest: rest.recent_trades_list("BTCUSDT"),
    "klines": lambda rest: rest.kline_candlestick_data("BTCUSDT", "1m", limit=1500),
    "continuous": lambda rest: rest.continuous_contract_kline_candlestick_data(
        "BTCUSDT", "PERPETUAL", "1m"
    ),
    "mark_price": lambda rest: rest.mark_price("BTCUSDT"),
    "open_interest": lambda rest: rest.open_interest("BTCUSDT"),
    "ticker24hr": lambda rest: rest.ticker24hr_price_change_statistics("BTCUSDT"),
    "ticker_price": lambda rest: rest.symbol_price_ticker("BTCUSDT"),
    "book_ticker": lambda rest: rest.symbol_order_book_ticker("BTCUSDT"),
    "exchange_info": lambda rest: rest.exchange_information(),
}


def test_binance_sdk_spot(tmp_path: Path) -> None:
    judge("binance_sdk_spot")
    with turned("binance", tmp_path) as address:
        check(sdk_client("binance", f"{address}/binance"), SPOT_REST, SPOT_STREAMS)


def test_binance_sdk_futures(tmp_path: Path) -> None:
    """Without forced orders, of which there may be none for minutes."""
    judge("binance_sdk_derivatives_trading_usds_futures")
    streams = {name: how for name, how in FUTURES_STREAMS.items() if "liquidation" not in name}
    with turned("binance_usdm", tmp_path) as address:
        check(sdk_client("binance_usdm", f"{address}/binance_usdm"), FUTURES_REST, streams)


def check(client: Any, rest: dict[str, Callable[[Any], Any]], streams: dict[str, Any]) -> None:
    found: dict[str, set[str]] = {}
    for name, ask in rest.items():
        found[name] = faults(ask(client.rest_api).data()) - SPARED

    async def main() -> None:
        for name, messages in (await sdk_streams(client.websocket_streams, streams)).items():
            found[name] = faults(messages) - SPARED

    run(main)
    assert {name: what for name, what in found.items() if what} == {}
