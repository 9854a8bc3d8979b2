"""A seeded market: prices, trades, candles, order books, calendar."""
