"""Helpers for tests: fakes that stand at the edges, never inside the package."""
