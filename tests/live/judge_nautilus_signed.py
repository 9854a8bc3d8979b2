"""What nautilus_trader's Binance adapter asks first where it has keys: the fees of the account,
with which it makes its instruments.
``judge_nautilus_signed.py binance|binance_usdm host:port key secret``

Prints one JSON line: the instruments with their fee, or the error that it got.  Told: addresses.
"""

import asyncio
import json
import os
import sys
from typing import Any

from nautilus_trader.adapters.binance import BinanceAccountType
from nautilus_trader.adapters.binance.factories import get_cached_binance_http_client
from nautilus_trader.adapters.binance.futures.providers import BinanceFuturesInstrumentProvider
from nautilus_trader.adapters.binance.http.error import BinanceError
from nautilus_trader.adapters.binance.spot.http.wallet import BinanceSpotWalletHttpAPI
from nautilus_trader.adapters.binance.spot.providers import BinanceSpotInstrumentProvider
from nautilus_trader.common.component import LiveClock


async def main(venue: str, address: str, key: str, secret: str) -> dict[str, Any]:
    spot, clock = venue == "binance", LiveClock()
    kind = BinanceAccountType.SPOT if spot else BinanceAccountType.USDT_FUTURES
    client = get_cached_binance_http_client(
        clock, kind, api_key=key, api_secret=secret, base_url=f"http://{address}/{venue}"
    )
    make = BinanceSpotInstrumentProvider if spot else BinanceFuturesInstrumentProvider
    provider = make(client, clock, account_type=kind)
    problem = None
    try:
        if spot:  # its provider logs an error only
            await BinanceSpotWalletHttpAPI(client, clock).query_spot_trade_fees()
        await provider.load_all_async()
    except BinanceError as error:
        problem = {"status": error.status, **error.message}
    fees = {str(each.id): str(each.taker_fee) for each in provider.list_all()}
    return {"fees": fees, "problem": problem}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 40))), flush=True)
    os._exit(0)  # its threads would end in a panic
