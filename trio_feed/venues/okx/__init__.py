"""OKX v5: spot, perpetuals and dated contracts, all in :mod:`.venue`."""
