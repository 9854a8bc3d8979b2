"""More clients that this project did not write speak to our Binance dialects, told addresses only.

Run by ``scripts/judges``, which installs them; without them every test here is skipped.
"""

from pathlib import Path

import pytest
from support.judges import judge
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
