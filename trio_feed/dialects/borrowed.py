"""Public history that is not kept here: the exchange's own answer, asked once for all clients.

Nothing of a client goes along: no header field, and of its query what the dialect knows.  What all
of them together may ask is a small part of the exchange's budget, so that nobody spends what gaps
are repaired with or what others sign.
"""

from math import ceil

import trio
from attrs import define, evolve, field

from ..push.edge.spending import Spending
from ..push.edge.throttle import RowBudgets
from ..push.mounts import Reply
from .outside import Signed
from .passing import Passing, Words

_KEPT_S = 5.0
"""So long an answer is given to everybody who asks the same: bots that start together, or that all
ask at the full hour."""
_MOST_KEPT = 64
_AT_ONCE, _MOST_ASKED = 2, 32
_LIMITED_S = 60
"""Said where the exchange wants no calls; how long it pauses us is known with the next question."""
_ALL = ""
_MOST_ADDRESSES = 1_000


@define(eq=False)
class _Asked:
    """A question on its way.  ``reply`` stays None where its client went meanwhile."""

    done: trio.Event = field(factory=trio.Event)
    reply: Reply | None = None


@define(eq=False)
class Borrowed:
    """Of one dialect.  ``per_s`` of request weight is asked for on average, ``burst`` at once; half
    of it by one address, so that nobody takes it from all others.  ``spending`` has these budgets
    under ``name``."""

    passing: Passing
    words: Words
    per_s: float
    burst: float
    name: str = "borrowed"
    spending: Spending = field(factory=Spending)
    _kept: dict[str, tuple[float, Reply]] = field(factory=dict, init=False)
    _asked: dict[str, _Asked] = field(factory=dict, init=False)
    _budget: RowBudgets = field(init=False)
    _shares: RowBudgets = field(init=False)
    """By address."""
    _places: trio.CapacityLimiter = field(init=False)

    def __attrs_post_init__(self) -> None:
        budgets, name = self.spending.budgets, self.name
        self._budget = budgets(name, self.per_s, self.burst, most=1)
        half = self.per_s / 2, self.burst / 2
        self._shares = budgets(f"{name} of an address", *half, _MOST_ADDRESSES)
        self._places = trio.CapacityLimiter(_AT_ONCE)

    async def ask(self, path: str, query: str, weight: int, address: str) -> Reply:
        """The exchange's answer, or the dialect's word for what kept it away."""
        target = f"{path}?{query}"
        while True:
            if (kept := self._of(target)) is not None:
                return kept
            if (asked := self._asked.get(target)) is None:
                break
            await asked.done.wait()
            if asked.reply is not None:
                return asked.reply
        now = trio.current_time()
        if wait_s := max(self._budget.wait_s(_ALL, now), self._shares.wait_s(address, now)):
            return self.words.no_room(ceil(wait_s))
        if len(self._asked) >= _MOST_ASKED:
            return self.words.no_room(1)
        self._budget.spend(_ALL, weight, now)
        self._shares.spend(address, weight, now)
        asked = self._asked[target] = _Asked()
        try:
            async with self._places:
                signed = Signed("GET", target.encode())
                found = await self.passing.ask(signed, weight, self.words)
            self.passing.say("GET", path, found.status)
            asked.reply = self._shown(found)
            self._keep(target, asked.reply)
            return asked.reply
        finally:
            del self._asked[target]
            asked.done.set()

    def _shown(self, found: Reply) -> Reply:
        """Without the exchange's header fields, and without what it says of our address."""
        if found.fields is None:  # the dialect's own word
            return found
        if found.status in (418, 429):
            return self.words.no_room(_LIMITED_S)
        if found.status in (200, 400):
            return evolve(found, fields=None)
        return self.words.not_sent(f"the exchange answered {found.status}")

    def _of(self, target: str) -> Reply | None:
        until, reply = self._kept.get(target, (0.0, None))
        return reply if trio.current_time() < until else None

    def _keep(self, target: str, reply: Reply) -> None:
        if reply.status != 200:
            return
        self._kept.pop(target, None)
        self._kept[target] = trio.current_time() + _KEPT_S, reply
        if len(self._kept) > _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
