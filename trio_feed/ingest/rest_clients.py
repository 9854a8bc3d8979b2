"""How a venue's questions get out: a client for its REST, and one per node of a chain.

Each has a budget of request weight, which venues that an exchange counts together share.
"""

from collections.abc import Mapping
from contextlib import AsyncExitStack

from attrs import define, field

from ..net.budgets import Budgets, Weights
from ..net.rest import RestClient, open_rest
from ..net.route import Route
from ..settings import ExchangeSettings
from ..venues import Venue
from .driver import Driver


@define
class RestClients:
    """Of one venue.  ``route`` is one without a limit of dials: that is on WebSockets."""

    venue: Venue
    settings: ExchangeSettings
    route: Route
    budgets: Budgets
    driver: Driver
    rest: RestClient | None = field(init=False, default=None)
    """The venue's, while it is open."""
    _weights: Weights = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._weights = self._budget(self.venue.SHARES)

    @property
    def waiting(self) -> int:
        """Questions that wait for weight."""
        return self._weights.waiting

    async def open_rest(self, stack: AsyncExitStack) -> RestClient | None:
        """The client for the venue's REST, closed with ``stack``; None: nothing is asked there."""
        url = self.settings.connection.rest_url or self.venue.REST_URL
        if not url or not self.venue.LISTED:  # where nothing is listed nothing is asked about
            return None
        self.rest = await self._open(stack, url, self._weights, {})
        return self.rest

    async def open_nodes(self, stack: AsyncExitStack) -> list[RestClient]:
        """A client and a budget per node of the chain, closed with ``stack``."""
        from .chain_opening import nodes_of  # a chain's, as all that is imported with it

        clients = []
        nodes = nodes_of(self.settings.solana, self.settings.connection.rest_url)
        for number, node in enumerate(nodes):
            weights = self._budget(f"{self.venue.SHARES} node {number}")
            headers = {"x-token": node.token.reveal()} if node.token else {}
            clients.append(await self._open(stack, node.rest_url, weights, headers))
        return clients

    def _budget(self, shares: str) -> Weights:
        per_minute = self.settings.connection.rest_weight_per_minute
        return self.budgets.weights(shares, per_minute, self.venue.BURST_S)

    async def _open(
        self, stack: AsyncExitStack, url: str, weights: Weights, headers: Mapping[str, str]
    ) -> RestClient:
        return await stack.enter_async_context(
            open_rest(
                url,
                route=self.route,
                timeout_s=self.settings.connection.rest_timeout_s,
                weights=weights,
                dialect=self.venue.DIALECT,
                exchange_at=self.driver.clock.evidence,
                headers=headers,
                spans=self.driver.metrics.spans,
            )
        )
