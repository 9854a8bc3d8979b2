"""Candles from trades against the exchange's own of the same minute: did we see every trade?

The two are made of the same trades, so every value is equal or something is missing.  Fewer
trades than the exchange counted (where it does not count, less volume) is what REST repairs;
anything else is reported.  Known and harmless reasons for a report: some exchanges leave
insurance-fund and ADL trades out of their aggregates, so a repair may not help, and is therefore
asked for once per candle only.  Quote volume is not compared: exchanges round it.
"""

from enum import StrEnum

from attrs import define, evolve, field, frozen

from ..model import Kline

Ids = tuple[int, int]
"""First and last trade id of a candle."""


class Remedy(StrEnum):
    REPAIR = "repair"
    """Trades are missing: get them from REST, rebuild the candle, ``add_built`` it again."""
    REPORT = "report"
    """Nothing that REST could mend."""


@frozen
class Match:
    """Both say the same.  ``repaired``: they did not at first."""

    open_ms: int
    repaired: bool = False


@frozen
class Difference:
    """Where the two disagree.

    ``fields`` are names of the candle's values, or ``first_id`` and ``last_id``.
    """

    open_ms: int
    fields: tuple[str, ...]
    remedy: Remedy
    built: Kline
    official: Kline

    @property
    def missing_trades(self) -> int:
        """How many more trades the exchange counted (negative: fewer)."""
        return self.official.trades - self.built.trades


@frozen
class OneSided:
    """A candle whose other side never came; the missing one is None."""

    open_ms: int
    built: Kline | None
    official: Kline | None


@define
class ReconcileCounts:
    """``repaired`` are the matches that were differences before; ``different`` counts candles,
    each once."""

    matched: int = 0
    repaired: int = 0
    different: int = 0
    only_built: int = 0
    only_official: int = 0


def compare(
    built: Kline,
    official: Kline,
    *,
    built_ids: Ids | None = None,
    official_ids: Ids | None = None,
) -> Difference | None:
    """Two closed candles of the same open time -> what differs, None where nothing does.

    Ids are compared where both are known, counts where the exchange gives one (not all do).
    Raises ValueError for two candles that do not belong together.
    """
    if built.open_ms != official.open_ms:
        raise ValueError(f"candles of {built.open_ms} and {official.open_ms}")
    names = ["volume", "open", "high", "low", "close"]
    counted = official.trades > 0 or not official.volume
    if counted:
        names.insert(0, "trades")
    fields = [name for name in names if getattr(built, name) != getattr(official, name)]
    if built_ids is not None and official_ids is not None and official.trades > 0:
        pairs = zip(("first_id", "last_id"), built_ids, official_ids, strict=True)
        fields += [name for name, ours, theirs in pairs if ours != theirs]
    if not fields:
        return None
    measure = "trades" if counted else "volume"
    missing = getattr(built, measure) < getattr(official, measure)
    remedy = Remedy.REPAIR if missing else Remedy.REPORT
    return Difference(built.open_ms, tuple(fields), remedy, built, official)


Verdict = Match | Difference | OneSided


@define
class _Pair:
    """What is known of one minute.  ``since_ms``: since when it waits for a side."""

    since_ms: float
    built: Kline | None = None
    official: Kline | None = None
    built_ids: Ids | None = None
    official_ids: Ids | None = None
    repairing: bool = False


@define
class Reconciler:
    """Both sides of one series, in any order; a minute is compared as soon as both are there.

    ``timeout_ms``: how long a side waits for the other (and a difference for its repair);
    ``max_minutes``: how many minutes may wait, the oldest goes first.
    """

    timeout_ms: float = 120_000
    max_minutes: int = 120
    counts: ReconcileCounts = field(factory=ReconcileCounts)
    _pairs: dict[int, _Pair] = field(factory=dict)

    def add_built(self, kline: Kline, *, now: float, ids: Ids | None = None) -> list[Verdict]:
        """A candle from trades closed, or was rebuilt by a repair; an open one says nothing."""
        if not kline.closed:
            return []
        pair = self._pair(kline.open_ms, now)
        pair.built, pair.built_ids = kline, ids
        return self._settle(pair, now)

    def add_official(self, kline: Kline, *, now: float, ids: Ids | None = None) -> list[Verdict]:
        """The exchange closed a candle; an open one says nothing."""
        if not kline.closed:
            return []
        pair = self._pair(kline.open_ms, now)
        pair.official, pair.official_ids = kline, ids
        return self._settle(pair, now)

    def expire(self, now: float) -> list[Verdict]:
        """What has waited too long is given up, oldest first."""
        late = [at for at, pair in self._pairs.items() if now - pair.since_ms >= self.timeout_ms]
        return [verdict for at in sorted(late) for verdict in self._give_up(at)]

    def _pair(self, open_ms: int, now: float) -> _Pair:
        return self._pairs.setdefault(open_ms, _Pair(now))

    def _settle(self, pair: _Pair, now: float) -> list[Verdict]:
        built, official = pair.built, pair.official
        if built is None or official is None:
            too_many = len(self._pairs) > self.max_minutes
            return self._give_up(min(self._pairs)) if too_many else []
        ids = {"built_ids": pair.built_ids, "official_ids": pair.official_ids}
        difference = compare(built, official, **ids)
        if difference is None:
            self.counts.matched += 1
            self.counts.repaired += pair.repairing
            del self._pairs[built.open_ms]
            return [Match(built.open_ms, pair.repairing)]
        self.counts.different += not pair.repairing
        if pair.repairing or difference.remedy is Remedy.REPORT:
            del self._pairs[built.open_ms]
            return [evolve(difference, remedy=Remedy.REPORT)]
        pair.repairing, pair.built, pair.since_ms = True, None, now
        return [difference]

    def _give_up(self, open_ms: int) -> list[Verdict]:
        pair = self._pairs.pop(open_ms)
        if pair.repairing:
            return []  # already told as a difference
        self.counts.only_built += pair.built is not None
        self.counts.only_official += pair.official is not None
        return [OneSided(open_ms, pair.built, pair.official)]
