"""Whole trading programs that this project did not write have a service of ours for their exchange.

Run by ``scripts/judges --heavy``, which installs them into a virtual environment of their own;
without it every test here is skipped.  They get addresses only.
"""

from itertools import pairwise
from pathlib import Path

import pytest
from support.turned import VENUES, heavy, says, turned

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours


@pytest.mark.parametrize("venue", VENUES)
def test_nautilus(venue: str, tmp_path: Path) -> None:
    """It decodes every message into a strict type and logs an error where it cannot."""
    python = heavy("nautilus_trader")
    with turned(venue, tmp_path) as address:
        words = "judge_nautilus.py", venue, address
        told = says(*words, program=python, within_s=100, never="[ERROR]")
    kind = "" if venue == "binance" else "-PERP"
    assert told["instruments"] == [f"{name}{kind}.BINANCE" for name in ("BTCUSDT", "ETHUSDT")]
    assert float(told["tick"]) == 0.1
    assert told["ids"] == sorted(set(told["ids"]))
    assert {after - before for before, after in pairwise(told["history"])} == {60_000}
    assert float(told["bid"]) < float(told["ask"])


@pytest.mark.parametrize("venue", VENUES)
def test_freqtrade(venue: str, tmp_path: Path) -> None:
    """In dry-run its strategy gets candles, and it opens a trade at the price of our book."""
    python = heavy("freqtrade")
    own = tmp_path / "freqtrade"
    own.mkdir()
    with turned(venue, tmp_path) as address:
        words = "judge_freqtrade.py", venue, address, str(own)
        told = says(*words, program=python, within_s=100, never=" - ERROR - ")
    assert len(told["candles"]) >= 400
    assert {after - before for before, after in pairwise(told["candles"])} == {60}
    assert told["history"] > len(told["candles"])
    assert told["bid"] < told["ask"]
    for price in (told["opened"], told["ticker"]):
        assert abs(price - told["ask"]) < told["ask"] / 50
