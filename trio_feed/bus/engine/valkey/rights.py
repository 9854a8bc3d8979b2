"""Whether the server lets us do all that we do, found out by doing it with a key that does not
stay: else a right that is missing shows when the first shard is taken, or never (``sadd``: then
nobody knows of the node).  The server tells its ACL only to users who may do more than we need."""

from collections.abc import Sequence

from coredis.exceptions import AuthorizationError, UnknownCommandError

from .link import Command
from .scripts import Script

_GONE_MS = 1000
_NOTHING = Script("return 1")


def tries(key: str) -> list[Command]:
    """One of each command; ``key`` is there for a moment.  Those of scripts are looked at here too:
    a script may do what its caller may."""
    return [
        (b"INFO", b"persistence"),
        (b"SET", key, b"", b"PX", _GONE_MS),
        (b"GET", key),
        (b"MGET", key),
        (b"PEXPIRE", key, _GONE_MS),
        (b"DEL", key),
        (b"SADD", key, b"x"),
        (b"SMEMBERS", key),
        (b"SREM", key, b"x"),
        (b"XADD", key, b"NOMKSTREAM", b"*", b"b", b""),
        (b"XREAD", b"STREAMS", key, b"0"),
        (b"XREVRANGE", key, b"+", b"-"),
        (b"XTRIM", key, b"MAXLEN", 0),
        (b"MEMORY USAGE", key),
        (b"EVAL", _NOTHING.text, 0),
        (b"EVALSHA", _NOTHING.sha, 0),
    ]


def lacking(tried: Sequence[Command], answers: Sequence[object]) -> list[str]:
    """At most a line each, with what to do.  Other errors are for who asks in earnest."""
    refused: list[str] = []
    unknown: list[str] = []
    keys = False
    for (name, *_), answer in zip(tried, answers, strict=True):
        word = name.decode().lower()
        if isinstance(answer, UnknownCommandError):
            unknown.append(word)
        elif isinstance(answer, AuthorizationError):
            # Whether the command is allowed is looked at first.
            if "command" in str(answer):
                refused.append(word)
            else:
                keys = True
    found = []
    if unknown:
        found.append(f"it does not know {', '.join(unknown)}: Valkey or Redis 7.0 is needed")
    if refused:
        found.append(f"our user may not run {', '.join(refused)}: see the ACL in docs/engine.md")
    if keys:
        found.append("our user may not use keys of engine.prefix: see the ACL in docs/engine.md")
    return found
