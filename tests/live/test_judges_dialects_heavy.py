"""Whole trading programs that this project did not write have a service of ours for their exchange.

Run by ``scripts/judges --heavy``, which installs them into a virtual environment of their own;
without it every test here is skipped.  They get addresses only.
"""

from itertools import pairwise
from pathlib import Path

import pytest
from support.turned import VENUES, heavy, passed_on, says, turned

from trio_feed.simulator.binance.accounts import API_KEY, SECRET

LOUD = [" - ERROR - ", " - WARNING - ", "Traceback"]
pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours


@pytest.mark.parametrize("venue", VENUES)
def test_nautilus(venue: str, tmp_path: Path) -> None:
    """It decodes every message into a strict type and logs an error where it cannot."""
    python = heavy("nautilus_trader")
    with turned(venue, tmp_path) as address:
        words = "judge_nautilus.py", venue, address
        told = says(*words, program=python, within_s=100, never=["[ERROR]"])
    kind = "" if venue == "binance" else "-PERP"
    assert told["instruments"] == [f"{name}{kind}.BINANCE" for name in ("BTCUSDT", "ETHUSDT")]
    assert float(told["tick"]) == 0.1
    assert told["ids"] == sorted(set(told["ids"]))
    assert {after - before for before, after in pairwise(told["history"])} == {60_000}
    assert float(told["bid"]) < float(told["ask"])


FIRST = {"binance": "GET /sapi/v1/asset/tradeFee", "binance_usdm": "GET /fapi/v2/account"}
"""What it asks before it makes its instruments, where it has keys."""
FEE = {"binance": "0.00100000", "binance_usdm": "0.000350"}


@pytest.mark.parametrize("passes", [False, True])
@pytest.mark.parametrize("venue", VENUES)
def test_nautilus_with_keys(venue: str, passes: bool, tmp_path: Path) -> None:
    """The fees of its account: an error that names the setting, or what the exchange says."""
    python = heavy("nautilus_trader")
    with turned(venue, tmp_path, *([passed_on(venue)] if passes else [])) as address:
        words = "judge_nautilus_signed.py", venue, address, API_KEY, SECRET
        told = says(*words, program=python)
    if passes:
        name = "BTCUSDT.BINANCE" if venue == "binance" else "BTCUSDT-PERP.BINANCE"
        assert (told["problem"], told["fees"][name]) == (None, FEE[venue])
    else:
        assert (told["problem"]["status"], told["problem"]["code"]) == (404, -1020)
        assert f"dialects.{venue}.passthrough = ['{FIRST[venue]}']" in told["problem"]["msg"]


@pytest.mark.parametrize("venue", VENUES)
def test_freqtrade(venue: str, tmp_path: Path) -> None:
    """In dry-run its strategy gets candles, and it opens a trade at the price of our book."""
    python = heavy("freqtrade")
    own = tmp_path / "freqtrade"
    own.mkdir()
    with turned(venue, tmp_path) as address:
        words = "judge_freqtrade.py", venue, address, str(own)
        told = says(*words, program=python, within_s=100, never=LOUD)
    assert len(told["candles"]) >= 400
    assert {after - before for before, after in pairwise(told["candles"])} == {60}
    assert told["history"] > len(told["candles"])
    assert told["bid"] < told["ask"]
    for price in (told["opened"], told["ticker"]):
        assert abs(price - told["ask"]) < told["ask"] / 50
    # What a trade of the last day would have paid: by the exchange's fundings and marks.
    assert bool(told["funding"]) is (venue == "binance_usdm")
