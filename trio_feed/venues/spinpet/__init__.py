"""Spin Pet, a program on Solana: prices only, in :mod:`.venue`."""
