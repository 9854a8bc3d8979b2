"""The domain as pure functions: calendar, ledger, candles from trades.  Time is an argument."""
