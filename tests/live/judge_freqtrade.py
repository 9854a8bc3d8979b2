"""freqtrade as a whole, in dry-run, with a service of ours as its exchange: a program of its own,
in a virtual environment of its own.  ``judge_freqtrade.py binance|binance_usdm host:port folder``

Prints one JSON line: the candles that its strategy got, and the trade that it opened at our prices.
Told: addresses, as docs/dialects.md says it.
"""

import json
import logging
import os
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from freqtrade.commands import Arguments
from freqtrade.configuration import Configuration
from freqtrade.enums import CandleType, RunMode
from freqtrade.freqtradebot import FreqtradeBot
from freqtrade.persistence import Trade

WITHIN_S = 80
STRATEGY = """
from freqtrade.strategy import IStrategy


class Buys(IStrategy):
    INTERFACE_VERSION = 3
    timeframe = "1m"
    minimal_roi = {"0": 10}
    stoploss = -0.5
    startup_candle_count = 30
    process_only_new_candles = False

    def populate_indicators(self, dataframe, metadata):
        return dataframe

    def populate_entry_trend(self, dataframe, metadata):
        dataframe["enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        return dataframe
"""


def ccxt_config(venue: str, address: str) -> dict[str, Any]:
    """As docs/dialects.md says it."""
    base = f"{address}/{venue}"
    if venue == "binance":
        urls = {"public": f"http://{base}/api/v3", "ws": {"spot": f"ws://{base}/ws/stream"}}
        return {"urls": {"api": urls}, "options": {"fetchMarkets": {"types": ["spot"]}}}
    urls = {"fapiPublic": f"http://{base}/fapi/v1", "fapiPublicV2": f"http://{base}/fapi/v2"}
    return {"urls": {"api": urls}, "options": {"fetchMarkets": {"types": ["linear"]}}}


def settings(venue: str, address: str, folder: Path) -> Path:
    """A configuration as ``freqtrade new-config`` writes it, with our addresses."""
    spot = venue == "binance"
    pair = "BTC/USDT" if spot else "BTC/USDT:USDT"
    strategies = folder / "strategies"
    strategies.mkdir()
    (strategies / "buys.py").write_text(STRATEGY)
    trading = {} if spot else {"trading_mode": "futures", "margin_mode": "isolated"}
    side = {"price_side": "same", "use_order_book": True, "order_book_top": 1}
    config = {
        **trading,
        "dry_run": True,
        "initial_state": "running",
        "db_url": "sqlite://",
        "max_open_trades": 1,
        "stake_currency": "USDT",
        "stake_amount": 500,
        "entry_pricing": {**side, "price_side": "other"},
        "exit_pricing": side,
        "exchange": {
            "name": "binance",
            "only_from_ccxt": True,
            "ccxt_config": ccxt_config(venue, address),
            "pair_whitelist": [pair],
        },
        "pairlists": [{"method": "StaticPairList"}],
        "strategy": "Buys",
        "strategy_path": str(strategies),
        "internals": {"process_throttle_secs": 1},
    }
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    return file


def main(venue: str, address: str, folder: str) -> dict[str, Any]:
    file = settings(venue, address, Path(folder))
    words = ["trade", "--config", str(file), "--userdir", folder]
    bot = FreqtradeBot(
        Configuration(Arguments(words).get_parsed_arg(), RunMode.DRY_RUN).get_config()
    )
    bot.startup()
    end = time.monotonic() + WITHIN_S
    while not Trade.get_open_trades() and time.monotonic() < end:
        bot.process()
        time.sleep(1)
    pair = bot.active_pair_whitelist[0]
    kind = CandleType.SPOT if venue == "binance" else CandleType.FUTURES
    frame = bot.exchange.klines((pair, "1m", kind))
    book = bot.exchange.fetch_l2_order_book(pair, 20)
    tickers = bot.exchange.get_tickers([pair])
    since = int(frame["date"].iloc[0].timestamp() * 1000) - 3_600_000
    history = bot.exchange.get_historic_ohlcv(pair, "1m", since, kind)
    (trade,) = Trade.get_open_trades()
    bot.process()  # with an open trade: rates
    bot.update_funding_fees()
    day_ago = datetime.now(UTC) - timedelta(days=1)
    return {
        "candles": [int(at.timestamp()) for at in frame["date"]],
        "history": len(history),
        "bid": book["bids"][0][0],
        "ask": book["asks"][0][0],
        "ticker": tickers[pair]["last"],
        "opened": trade.open_rate,
        "fee": trade.fee_open,
        "funding": bot.exchange.get_funding_fees(pair, trade.amount, False, day_ago),
    }


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="[%(levelname)s] %(message)s")
    overdue = threading.Timer(WITHIN_S + 20, lambda: os._exit(2))
    overdue.daemon = True
    overdue.start()
    print(json.dumps(main(*sys.argv[1:])), flush=True)
    os._exit(0)
