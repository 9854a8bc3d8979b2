"""What differs between Binance's two markets: one table each."""

from attrs import frozen


@frozen
class Profile:
    """``venue``: whose data it is; ``api``: the base path of REST; ``spot`` False: USD-M.

    ``weight``: request weight per minute that the exchange allows; ``rows``: most candles of one
    answer, ``default_rows`` where no limit is given.  ``clamps``: a limit beyond it is cut down
    silently, else it is refused.
    """

    venue: str
    prefix: str
    api: str
    spot: bool
    weight: int
    rows: int
    clamps: bool
    api_socket: str
    """The path of the WebSocket that takes requests, and ``api_url``, where it is."""
    api_url: str
    paths: tuple[str, ...]
    """Before ``/ws`` and ``/stream``.  USD-M's streams are split over two of them since
    2026-04-23; here each path has all streams, and so has the old one without."""


SPOT = Profile(
    "binance", "/binance", "/api/v3", True, 6000, 1000, True,
    "/ws-api/v3", "wss://ws-api.binance.com:443", ("",),
)  # fmt: skip
USDM = Profile(
    "binance_usdm", "/binance_usdm", "/fapi/v1", False, 2400, 1500, False,
    "/ws-fapi/v1", "wss://ws-fapi.binance.com",
    ("", "/public", "/market", "/private"),
)  # fmt: skip
