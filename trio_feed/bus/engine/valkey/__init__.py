"""The engine in Valkey 8 or Redis 7, of which only commands that both have are used.  The only
importer of coredis, which is the extra ``cluster``.

Of coredis its connections are used and not its client: a connection is used once, is a task of its
own, and costs a seventh of the time; which server is the primary is for us to find out anyway.
"""

from .engine import ValkeyEngine, open_valkey

__all__ = ["ValkeyEngine", "open_valkey"]
