"""More clients that this project did not write speak to our Binance dialects, told addresses only.

Run by ``scripts/judges``, which installs them; without them every test here is skipped.
"""

from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from support.judges import judge, node_judge
from support.turned import VENUES, own_certificate, says, turned

__all__ = ["own_certificate"]
pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours
EVENTS = ["24hrTicker", "aggTrade", "depthUpdate", "kline"]


@pytest.mark.parametrize("venue", VENUES)
def test_unicorn_binance(venue: str, tmp_path: Path) -> None:
    """Its depth cache checks the ids of every update and says when it is out of step."""
    judge("unicorn_binance_local_depth_cache")
    with turned(venue, tmp_path) as address:
        told = says("judge_unicorn.py", venue, address)
    assert told["events"] == EVENTS
    assert told["bid"] < told["ask"]
    assert told["levels"] > 100


@pytest.mark.parametrize("venue", VENUES)
def test_cryptofeed(venue: str, tmp_path: Path, own_certificate: tuple[str, ...]) -> None:
    """It checks the ids of every book update itself and logs where they do not follow."""
    judge("cryptofeed")
    with turned(venue, tmp_path, *own_certificate) as address:
        told = says("judge_cryptofeed.py", venue, address)
    ids = told["ids"]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert told["bids"] > 100
    assert "Missing book update" not in told["log"]


@pytest.mark.parametrize("venue", VENUES)
def test_npm_binance(venue: str, tmp_path: Path) -> None:
    node = node_judge("binance")
    with turned(venue, tmp_path) as address:
        told = says("js/judge_binance.js", venue, f"{address}/{venue}", program=node)
    assert told["klines"] == 500
    assert Decimal(told["bid"]) < Decimal(told["ask"])
    assert sorted(told["events"]) == EVENTS


@pytest.mark.parametrize("venue", [*VENUES, "okx"])
def test_npm_ccxt(venue: str, tmp_path: Path) -> None:
    """It checks the ids of every book update itself and throws where they do not follow."""
    node = node_judge("ccxt")
    with turned(venue, tmp_path) as address:
        told = says("js/judge_ccxt.js", venue, address, program=node)
    rows = told["rows"]  # of three pages
    assert len(rows) == 250
    assert {after - before for before, after in pairwise(rows)} == {60_000}
    assert told["book"][0] < told["book"][1]
    assert told["ids"] == sorted(set(told["ids"]))
    assert told["candle"][3] <= told["candle"][4] <= told["candle"][2]
    assert [name.partition("/")[0] for name in told["named"]] == ["BTC", "ETH"]
