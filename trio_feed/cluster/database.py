"""The database of all nodes, as this one finds it."""

from typing import Never

import trio
from attrs import define

from ..errors import StoreError
from ..model import Interval, Series
from ..store import KlineStore
from .membership import Membership

_ASK_S = 5.0
_NO_SERIES = Series("", "", Interval.M1)
"""Nothing is stored of it."""


@define(eq=False)
class DatabaseWatch:
    """``problem``: why it does not answer, or takes no rows; empty: all is well."""

    _membership: Membership
    problem: str = ""

    async def run(self, store: KlineStore) -> Never:
        """Until cancelled."""
        while True:
            try:
                await store.history(_NO_SERIES, limit=1)
                await self._membership.learn()
                self.problem = store.statistics().problem
            except StoreError as error:
                self.problem = str(error)
            await trio.sleep(_ASK_S)
