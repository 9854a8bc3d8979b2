"""Rows of ``public/instruments``: what is fed, as far as our table knows it.  Pure.

What it does not know is an empty string, which is OKX's own way to say nothing.  ``minSz`` is the
step, which is the smallest size that can be told.
"""

from typing import Any

import msgspec

from ...model import Instrument, plain
from .units import contracts, family, inst_type, is_inverse


def instrument_row(instrument: Instrument) -> str:
    """One row, in OKX's fields of 2026-07."""
    spot, inverse = instrument.kind == "spot", is_inverse(instrument)
    step = contracts(instrument, instrument.step_size)
    pair = "" if spot else family(instrument)
    row: dict[str, Any] = {
        "alias": "",
        "baseCcy": instrument.base if spot else "",
        "category": "1",
        "ctMult": "" if spot else "1",
        "ctType": "" if spot else "inverse" if inverse else "linear",
        "ctVal": "" if spot else plain(instrument.contract_size),
        "ctValCcy": "" if spot else instrument.quote if inverse else instrument.base,
        "expTime": "",
        "instFamily": pair,
        "instId": instrument.native,
        "instType": inst_type(instrument),
        "lever": "",
        "listTime": "",
        "lotSz": step,
        "maxLmtSz": "",
        "maxMktSz": "",
        "minSz": step,
        "optType": "",
        "quoteCcy": instrument.quote if spot else "",
        "ruleType": "normal",
        "settleCcy": "" if spot else instrument.base if inverse else instrument.quote,
        "state": "live" if instrument.trading else "suspend",
        "stk": "",
        "tickSz": plain(instrument.tick_size),
        "uly": pair.partition("_")[0],
    }
    return msgspec.json.encode(row).decode()
