"""One client without the service: a venue's feed inside of a user's own Trio program."""

from .running import Feed, feed, run_feed

__all__ = ["Feed", "feed", "run_feed"]
