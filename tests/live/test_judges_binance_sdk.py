"""Binance's own Python clients and the npm package ``binance`` use the boxes.

Run by ``scripts/judges``, which installs them; without them every test here is skipped.  Binance's
models are generated from its OpenAPI: a field too many or too few is a failure here.  Nothing is
overridden but addresses, and streams are read as strictly as REST answers.
"""

import asyncio
import importlib
import json
from decimal import Decimal
from typing import Any

import pytest
from support.box import real_now_ms
from support.judges import (
    TRADES_PER_MINUTE,
    binance_box,
    complete,
    judge,
    node_judge,
    run,
)
from support.turned import says

from trio_feed.simulator import Market
from trio_feed.simulator.binance.statistics import Statistics

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours


def strict(model: Any) -> None:
    """Streams are read with pydantic's reader, which drops what it does not know; ``from_dict``,
    the SDK's own for REST answers, keeps it where :func:`complete` finds it.  A list's items are
    of a model of their own."""
    models = importlib.import_module(model.__module__.rpartition(".")[0])
    item = getattr(models, f"{model.__name__}Inner", model)
    model.model_validate_json = staticmethod(lambda text: item.from_dict(json.loads(text)))


async def sdk_streams(streams: Any, wanted: dict[str, dict[str, Any]]) -> dict[str, list[Any]]:
    """Subscribe to each stream and wait until all of them have come."""
    got: dict[str, list[Any]] = {name: [] for name in wanted}
    await streams.create_connection()
    for name, params in wanted.items():
        handle = await getattr(streams, name)(**params)
        strict(handle._response_model)
        handle.on("message", got[name].append)
    while not all(got.values()):
        await asyncio.sleep(0.05)
    await streams.close_connection()
    return got


BTC = {"symbol": "btcusdt"}
SPOT_STREAMS: dict[str, dict[str, Any]] = {
    "agg_trade": BTC,
    "trade": BTC,
    "kline": {**BTC, "interval": "1m"},
    "ticker": BTC,
    "mini_ticker": BTC,
    "book_ticker": BTC,
    "diff_book_depth": BTC,
    "partial_book_depth": {**BTC, "levels": "10"},
    "all_mini_ticker": {},
}
FUTURES_STREAMS: dict[str, dict[str, Any]] = {
    "liquidation_order_streams": BTC,
    "aggregate_trade_streams": BTC,
    "kline_candlestick_streams": {**BTC, "interval": "1m"},
    "continuous_contract_kline_candlestick_streams": {
        "pair": "btcusdt",
        "contract_type": "perpetual",
        "interval": "1m",
    },
    "individual_symbol_ticker_streams": BTC,
    "individual_symbol_mini_ticker_stream": BTC,
    "mark_price_stream": BTC,
    "individual_symbol_book_ticker_streams": BTC,
    "diff_book_depth_streams": BTC,
    "partial_book_depth_streams": {**BTC, "levels": "10"},
    "all_market_mini_tickers_stream": {},
    "all_market_tickers_streams": {},
}


def sdk_client(venue: str, address: str) -> Any:
    """Told: addresses."""
    common = judge("binance_common.configuration")
    if venue == "binance":
        make = judge("binance_sdk_spot.spot").Spot
    else:
        package = "binance_sdk_derivatives_trading_usds_futures"
        make = judge(f"{package}.derivatives_trading_usds_futures").DerivativesTradingUsdsFutures
    return make(
        config_rest_api=common.ConfigurationRestAPI(base_path=f"http://{address}", retries=0),
        config_ws_streams=common.ConfigurationWebSocketStreams(stream_url=f"ws://{address}"),
    )


def test_binance_sdk_spot_streams() -> None:
    async def main() -> None:
        client = sdk_client("binance", served.address)
        for messages in (await sdk_streams(client.websocket_streams, SPOT_STREAMS)).values():
            complete(messages)

    with binance_box("binance") as served:
        run(main)


def test_binance_sdk_spot_rest() -> None:
    with binance_box("binance") as served:
        client = sdk_client("binance", served.address).rest_api
        assert len(client.klines("BTCUSDT", "1m", limit=1000).data()) == 1000
        for answer in (
            client.time(),
            client.depth("BTCUSDT", limit=5000),
            client.agg_trades("BTCUSDT"),
            client.get_trades("BTCUSDT"),
            client.ticker24hr(symbol="BTCUSDT"),
            client.ticker_book_ticker(symbol="BTCUSDT"),
        ):
            complete(answer.data())
        (row,) = client.exchange_info(symbol="BTCUSDT").data().symbols
    assert not [name for name in type(row).model_fields if getattr(row, name) is None]
    filters = [item.actual_instance.filter_type for item in row.filters]
    assert filters == ["PRICE_FILTER", "LOT_SIZE", "NOTIONAL"]


def test_binance_sdk_futures_streams() -> None:
    """The box's clock stands shortly before a liquidation."""

    async def main() -> None:
        client = sdk_client("binance_usdm", served.address)
        for messages in (await sdk_streams(client.websocket_streams, FUTURES_STREAMS)).values():
            complete(messages)

    market = Market(7, ("BTCUSDT",), TRADES_PER_MINUTE)
    soon = next(Statistics(market).liquidations("BTCUSDT", int(real_now_ms())))
    with binance_box("binance_usdm", ahead_ms=soon.time_ms - real_now_ms() - 4000) as served:
        run(main)


def test_binance_sdk_futures_rest() -> None:
    with binance_box("binance_usdm") as served:
        client = sdk_client("binance_usdm", served.address).rest_api
        assert len(client.kline_candlestick_data("BTCUSDT", "1m", limit=1500).data()) == 1500
        for answer in (
            client.order_book("BTCUSDT", limit=1000),
            client.mark_price("BTCUSDT"),
            client.compressed_aggregate_trades_list("BTCUSDT"),
            client.recent_trades_list("BTCUSDT"),
            client.symbol_order_book_ticker("BTCUSDT"),
            client.ticker24hr_price_change_statistics("BTCUSDT"),
        ):
            complete(answer.data())
        info = client.exchange_information().data()
    assert [row.symbol for row in info.symbols] == ["BTCUSDT", "ETHUSDT"]
    complete(info.rate_limits)
    complete(info.assets)


@pytest.mark.parametrize("venue", ["binance", "binance_usdm"])
def test_npm_binance(venue: str) -> None:
    node = node_judge("binance")
    with binance_box(venue) as served:
        told = says("js/judge_binance.js", venue, served.address, program=node)
    assert told["klines"] == 500
    assert Decimal(told["bid"]) < Decimal(told["ask"])
    assert sorted(told["events"]) == ["24hrTicker", "aggTrade", "depthUpdate", "kline"]
