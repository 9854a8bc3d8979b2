"""What of Binance's public history is not kept here and is the exchange's own answer: past fundings
of USD-M and candles of its mark price, which freqtrade takes for the fees of a simulated trade.

Parameters and limits: dialect-facts, section 1; mark price candles are asked like ``klines``.
"""

from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlencode

from attrs import frozen

from ...push.mounts import Errand, Question, Reply
from ..borrowed import Borrowed
from ..market import MarketData
from . import errors
from .errors import BadParameter
from .parameters import Parameters, check_case, check_symbol
from .profile import Profile
from .weight import UsedWeight, candles_weight

_PART = 10
"""One in so many of the exchange's request weight is for these."""
_BURST_S = 30
_FUNDING_WEIGHT = 3
"""The exchange counts fundings apart, 500 in 5 minutes; as so much they stay below that."""
_MOST_FUNDINGS = 1000
_PARAMETERS = "symbol", "startTime", "endTime", "limit"


def errands(
    profile: Profile, market: MarketData, used: UsedWeight
) -> dict[tuple[str, str], Errand]:
    """Of what may be asked for; nothing where the exchange is not in reach from here."""
    if profile.spot or market.passing is None:
        return {}
    per_s = profile.weight / 60 / _PART
    name, spending = f"history of {market.venue}", market.context.spending
    burst = per_s * _BURST_S
    borrowed = Borrowed(market.passing, errors.Signed(), per_s, burst, name, spending)
    history = _History(profile, market, borrowed, used)
    return {
        ("GET", f"{profile.api}/fundingRate"): history.fundings,
        ("GET", f"{profile.api}/markPriceKlines"): history.mark_price_klines,
    }


@frozen
class _History:
    profile: Profile
    market: MarketData
    borrowed: Borrowed
    used: UsedWeight

    def fundings(self, question: Question) -> Reply | Callable[[bytes], Awaitable[Reply]]:
        def weigh(parameters: Parameters) -> int:
            if "symbol" in parameters:
                self._check_symbol(parameters)
            parameters.limit(100, _MOST_FUNDINGS, clamps=False)
            return _FUNDING_WEIGHT

        return self._asked("fundingRate", _PARAMETERS, question, weigh)

    def mark_price_klines(self, question: Question) -> Reply | Callable[[bytes], Awaitable[Reply]]:
        def weigh(parameters: Parameters) -> int:
            self._check_symbol(parameters)
            parameters.interval(seconds=False)
            return candles_weight(parameters.limit(500, self.profile.rows, clamps=False))

        return self._asked("markPriceKlines", ("interval", *_PARAMETERS), question, weigh)

    def _check_symbol(self, parameters: Parameters) -> None:
        """One that is fed or may be; it does not begin to be fed by that."""
        name, listing = parameters.mandatory("symbol"), self.market.listing(self.market.venue)
        check_case(name)
        if listing.of_native(name) is None and all(name != each.native for each in listing):
            check_symbol(name)

    def _asked(
        self,
        name: str,
        known: Sequence[str],
        question: Question,
        weigh: Callable[[Parameters], int],
    ) -> Reply | Callable[[bytes], Awaitable[Reply]]:
        """``known``: the parameters that go along, in this order; ``weigh`` checks them, too."""
        if self.market.withheld:
            return errors.simulated(self.market.venue)
        try:
            parameters = Parameters(question.query)
            weight = weigh(parameters)
            for bound in ("startTime", "endTime"):
                parameters.time_ms(bound)
            found = [(each, parameters.text(each)) for each in known]
        except BadParameter as problem:
            return errors.error(problem.code, str(problem), problem.status)
        self.used.add(question.host, weight, self.market.context.now_ms())
        query = urlencode([(each, value) for each, value in found if value is not None])

        async def borrowed(_body: bytes) -> Reply:
            return await self.borrowed.ask(
                f"{self.profile.api}/{name}", query, weight, question.host
            )

        return borrowed
