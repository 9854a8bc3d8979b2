"""Binance: one module per market (:mod:`.spot`, :mod:`.usdm`) over what the two share."""
