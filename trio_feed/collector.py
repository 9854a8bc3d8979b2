"""How the garbage collector of a process with many clients is set.

A collection stops everybody for as long as it takes, 0.2 to 0.9 us for each object it looks at, and
a client of ten subscriptions is 130 of them.  An object is looked at once among the young and once
among the middle-aged, however often that is done: so it is done often and for a few at a time.
Only a full collection looks again and again at all that lives, 0.5 s of 10,000 clients, so it comes
seldom.  What has gone is freed without one, for neither a connection nor a message leaves a cycle
behind (tests/test_server.py).
"""

import gc

_AT_START = 50_000, 20, 20
_AFTER_START = 1_000, 5, 4_000
"""Objects more than before; collections of the young, and of the middle-aged before a full one."""


def collect_seldom() -> None:
    """For a start: it makes hundreds of thousands of candles, frees next to nothing, and nobody
    waits for the loop yet."""
    gc.set_threshold(*_AT_START)


def spare_collector() -> None:
    """For a process that has started.  What was made for the start stays, and is not looked at
    again; collections are short from now on."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_AFTER_START)
