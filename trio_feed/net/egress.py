"""Which proxy of a pool next.  Pure: time is an argument, of the clock
that nobody sets; the caller dials.

Sticky: a lane stays with its proxy while that one is healthy, also when a better one comes back:
exchanges count per exit, and what works is left alone (with ``pick = "fastest"``, unless another
one is clearly faster).  Where its proxy cools down, or the caller has just failed with it
(``avoid``), the lane moves on to the healthiest of the others.

Health is made of outcomes:

- An error of the proxy itself (it cannot be reached, hangs, refuses us, speaks nonsense) cools it
  down at once: 2 s, doubled with each in a row up to a minute.  Refused credentials need a person:
  ten minutes, and a proxy that locks out who asks too often is not asked often.
- An error of the exchange behind it (its certificate, its refusal to upgrade, "could not reach the
  target") may be the fault of anything beyond the proxy: only the third within a minute of each
  other cools it down, and never for longer than 2 s, or a restarting exchange would make the whole
  pool wait.  That the tunnel itself succeeds proves nothing about what is behind it, so these
  errors are forgotten by time and not by success.
- A refusal of the exchange that is about the address or its region (``blocked``) is as final as an
  error of the proxy: it cools down at once, doubled with each in a row.  That a tunnel opens is no
  success then, only that the exchange accepts something (:meth:`Egress.accepted`), and what was
  refused last is chosen last.
- Failures while it cools down already are those of attempts that were under way, 200 at a time in
  a mass reconnect: counted, but no reason to double again.

When all cool down there is no proxy: the caller waits and says so.  A pool never means "direct".

For an operator a proxy is down from its first cool-down to its next success, whatever is tried in
between, and the pool while all of its proxies are: :meth:`Egress.news` reports each change once.
"""

from collections.abc import Sequence, Set

import trio
from attrs import evolve, frozen

from ..errors import (
    HostUnreachable,
    NetworkError,
    ProxyAuthRequired,
    ProxyRefused,
    RestRefused,
    TlsNameMismatch,
    TlsReset,
    TlsUntrusted,
    TunnelTimeout,
    UpgradeRefused,
)
from ..instants import Mono
from ..settings import ConnectionSettings, EgressSettings
from .proxy import Proxy, proxy_of
from .proxy_health import ProxyHealth, ProxyStatistics

_OF_TARGET = (
    HostUnreachable, RestRefused, TlsNameMismatch, TlsUntrusted, UpgradeRefused,
)  # fmt: skip
_SHORTEST_COOL_S = 0.1
_NEWEST_COUNTS = 0.3
_CLEARLY = 0.7
"""Another proxy must be faster by so much, or two of the same speed take turns for nothing."""
_TARGET_CODES = (502, 503, 504, 4, 5)  # HTTP statuses and SOCKS5 replies: the target was not there


@frozen
class EgressNews:
    """A proxy, or with an empty ``address`` the whole pool, went down or came up again."""

    up: bool
    address: str
    problem: str
    reason: str = ""
    """The type of the error; of a proxy that went down."""

    @property
    def event(self) -> str:
        """Its name in the log."""
        return f"{'proxy' if self.address else 'egress'}.{'up' if self.up else 'down'}"


class Egress:
    """A pool of at least one proxy, shared by all connections of a venue."""

    def __init__(self, proxies: Sequence[Proxy], policy: EgressSettings | None = None) -> None:
        if not proxies:
            raise ValueError("a pool without proxies leads nowhere")
        self._policy = policy or EgressSettings()
        self._health = {proxy: ProxyHealth(i) for i, proxy in enumerate(dict.fromkeys(proxies))}
        self._lanes: dict[int, Proxy] = {}  # who uses what; entries outlive a cool-down
        self._reported_down = False

    def __len__(self) -> int:
        """How many proxies there are."""
        return len(self._health)

    def __repr__(self) -> str:
        cooling = sum(health.cool_until is not None for health in self._health.values())
        return f"<Egress of {len(self._health)} proxies, {cooling} failed last>"

    def choose(self, now: Mono, avoid: Set[Proxy] = frozenset(), lane: int = 0) -> Proxy | None:
        """The proxy for the next dial of ``lane``, never one of ``avoid``; None: wait until
        :meth:`next_at`.

        Lanes keep apart as far as there are healthy proxies for it, the higher gives way.
        """
        healthy = [p for p, h in self._health.items() if p not in avoid and not h.cools(now)]
        if not healthy:
            return None
        current = self._lanes.get(lane)
        below = {proxy for other, proxy in self._lanes.items() if other < lane}
        if current in healthy and (current not in below or below.issuperset(healthy)):
            faster = self._faster(current, set(healthy) - set(self._lanes.values()), now)
            self._lanes[lane] = faster or current
            return self._lanes[lane]
        others = {proxy for other, proxy in self._lanes.items() if other != lane}
        self._lanes[lane] = min(
            healthy, key=lambda p: (p in below, p in others, self._rank(p, now))
        )
        return self._lanes[lane]

    def succeeded(self, proxy: Proxy, now: Mono, took_s: float | None = None) -> None:
        """A tunnel through ``proxy`` is up, after ``took_s``: whatever cooled it down is over."""
        health = self._health[proxy]
        if took_s is not None:
            before_s = health.latency_s_at(now)
            kept_s = took_s if before_s is None else before_s
            health.latency_s = kept_s + (took_s - kept_s) * _NEWEST_COUNTS
            health.measured = now
        health.successes += 1
        health.failed_last = False
        health.let_in = True
        health.in_a_row = 0
        health.target_errors = self._target_errors(health, now)
        if not health.blocked:
            health.down = False
            health.cool_until = None

    def accepted(self, proxy: Proxy) -> None:
        """The exchange lets in who comes by ``proxy``: it is not blocked (any more)."""
        health = self._health[proxy]
        if health.blocked:
            health.blocked = 0
            health.down = False
            health.cool_until = None

    def failed(
        self, proxy: Proxy, now: Mono, error: NetworkError, *, of_proxy: bool | None = None
    ) -> None:
        """An attempt through ``proxy`` ended in ``error``.

        ``of_proxy``: whose error it is, where the caller knows better than its type.
        """
        health, policy = self._health[proxy], self._policy
        cooling = health.cools(now)
        health.failures += 1
        health.failed_last = True
        health.problem = " ".join(str(error).split())[:300]
        health.reason = type(error).__name__
        if isinstance(error, ProxyAuthRequired):
            health.let_in = False
            health.cool(now, policy.credentials_cool_down_s)
        elif isinstance(error, RestRefused | UpgradeRefused) and error.blocked:
            if not cooling:
                health.cool(now, self._doubled_s(health.blocked))
            health.blocked += 1
        elif _is_of_proxy(error) if of_proxy is None else of_proxy:
            if not cooling:
                health.cool(now, self._doubled_s(health.in_a_row))
                health.in_a_row += 1
        else:
            health.target_errors = self._target_errors(health, now) + 1
            health.target_error = now
            others = len(self._health) > 1  # else the callers' own backoff is the right wait
            if others and health.target_errors >= policy.target_errors and not cooling:
                health.cool(now, policy.cool_down_min_s)

    def turn_of(self, proxy: Proxy) -> trio.Lock | None:
        """Held by the one who may try: while nobody knows whether the credentials are right, a
        dozen connections that try at once would lock the account.  None: they are right."""
        health = self._health[proxy]
        return health.turn if proxy.username and not health.let_in else None

    def cools(self, proxy: Proxy, now: Mono) -> bool:
        return self._health[proxy].cools(now)

    def next_at(self, now: Mono) -> Mono:
        """When the first proxy may be used again; ``now`` while one is healthy."""
        return min(max(health.cool_until or now, now) for health in self._health.values())

    def explain(self, now: Mono) -> str:
        """For an operator, one line: who cools down, for how long and why."""
        left_s = self.next_at(now) - now
        problems = "; ".join(
            f"{p.name} for {h.cool_s(now):.1f} s ({h.problem})"
            for p, h in self._health.items()
            if h.cools(now)
        )
        count = len(self._health)
        return f"no proxy of {count} may be used for {left_s:.1f} s, never direct: {problems}"

    def news(self, now: Mono) -> list[EgressNews]:
        """What has gone down or come up since the last call."""
        news = []
        for proxy, health in self._health.items():
            if health.down is not health.reported_down:
                health.reported_down = health.down
                problem, reason = (health.problem, health.reason) if health.down else ("", "")
                news.append(EgressNews(not health.down, proxy.name, problem, reason))
        down = all(health.down for health in self._health.values())
        if down is not self._reported_down:
            self._reported_down = down
            news.append(EgressNews(not down, "", self.explain(now) if down else ""))
        return news

    def statistics(self, now: Mono) -> tuple[ProxyStatistics, ...]:
        """A snapshot per proxy, in the order of the settings."""
        return tuple(
            health.statistics(proxy.name, proxy.kind, now) for proxy, health in self._health.items()
        )

    def _faster(self, current: Proxy, others: Set[Proxy], now: Mono) -> Proxy | None:
        """With ``pick = "fastest"``: one of ``others`` that is worth leaving ``current`` for, which
        is one of clearly less latency, or one as healthy that nobody has measured of late."""
        health = self._health[current]
        own_s = health.latency_s_at(now)
        if self._policy.pick != "fastest" or own_s is None:
            return None  # it is to be measured first itself
        as_healthy = [p for p in others if self._rank(p, now)[:3] <= self._rank(current, now)[:3]]
        found = min(as_healthy, key=lambda p: self._rank(p, now)[3:], default=None)
        found_s = None if found is None else self._health[found].latency_s_at(now)
        return found if found_s is None or found_s < own_s * _CLEARLY else None

    def _doubled_s(self, times: int) -> float:
        policy = self._policy
        return min(policy.cool_down_min_s * 2.0 ** min(times, 30), policy.cool_down_max_s)

    def _rank(self, proxy: Proxy, now: Mono) -> tuple[int, int, int, float, int]:
        """The healthiest first, then the fastest where that is wanted (what is not measured before
        all, or it never were), then the order of the settings."""
        health, latency_s = self._health[proxy], 0.0
        if self._policy.pick == "fastest":
            latency_s = health.latency_s_at(now) or 0.0
        errors = self._target_errors(health, now)
        return health.blocked, health.in_a_row, errors, latency_s, health.order

    def _target_errors(self, health: ProxyHealth, now: Mono) -> int:
        """Those that are not forgotten yet."""
        if health.target_error is None:
            return 0
        fresh = now - health.target_error < self._policy.cool_down_max_s
        return health.target_errors if fresh else 0


def make_egress(connection: ConnectionSettings) -> Egress | None:
    """The pool that the settings ask for, of one where there is one proxy; None without any."""
    wanted = [settings for settings in connection.proxies or [connection.proxy] if settings.enabled]
    if not wanted:
        return None
    policy = connection.egress if len(wanted) > 1 else policy_of_one(connection)
    return Egress([proxy_of(settings) for settings in wanted], policy)


def policy_of_one(connection: ConnectionSettings) -> EgressSettings:
    """How a single proxy is used: nothing else leads out, so it is tried again as soon as any
    connection would be; only refused credentials are left alone for as long as in a pool."""
    policy = connection.egress
    shortest_s = min(policy.cool_down_min_s, max(connection.backoff_min_s, _SHORTEST_COOL_S))
    longest_s = max(shortest_s, min(policy.cool_down_max_s, connection.backoff_max_s))
    return evolve(policy, cool_down_min_s=shortest_s, cool_down_max_s=longest_s)


def _is_of_proxy(error: NetworkError) -> bool:
    """By its type: is it the proxy's own, or that of what lies behind it?

    A step with the proxy that hangs counts as the proxy's: each repetition would cost the deadline.
    """
    if isinstance(error, ProxyRefused):
        return error.code not in _TARGET_CODES
    if isinstance(error, TlsReset):
        return error.plain  # a captive portal says 200 to a CONNECT, and then serves its page
    if isinstance(error, TunnelTimeout):
        return error.step != "TLS handshake"
    return not isinstance(error, _OF_TARGET)
