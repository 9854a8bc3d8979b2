"""OKX's errors.  REST: ``{"code":"51001","data":[],"msg":".."}``, mostly in a 200.

Sources: "Error Code" of www.okx.com/docs-v5 (2026-07-20); dialect-facts, section 3.  What is ours
to say stands behind OKX's own words, in brackets.
"""

from collections.abc import Mapping

import msgspec

from ...push.edge.work import Busy
from ...push.mounts import Question, Reply

UNKNOWN_INSTRUMENT = "Instrument ID, Instrument ID code, or Spread ID doesn't exist."
UNAVAILABLE = "Service temporarily unavailable. Try again later."
_PRIVATE = (
    "account", "asset", "broker", "convert", "copytrading", "finance", "fiat", "rfq", "sprd",
    "trade", "tradingBot", "users",
)  # fmt: skip
"""The rooms of the API behind a key."""


class BadParameter(Exception):
    """A question is answered with this error."""

    def __init__(self, code: str, problem: str, status: int = 200) -> None:
        super().__init__(problem)
        self.code, self.status = code, status


def wrong(name: str, why: str = "") -> BadParameter:
    """``why``: our own reason, where OKX would have answered."""
    return BadParameter("51000", f"Parameter {name} error.{f' (trio_feed: {why})' if why else ''}")


def not_yet(what: str) -> BadParameter:
    """It is fed, and nothing of it came so far."""
    return BadParameter("50001", f"{UNAVAILABLE} (trio_feed: {what})", 503)


def error(code: str, problem: str, status: int = 200) -> Reply:
    body = msgspec.json.encode({"code": code, "data": [], "msg": problem}).decode()
    return Reply(body, status)


def busy(problem: Busy) -> Reply:
    """No turn at the work gate."""
    return error("50011", f"Too Many Requests (trio_feed: {problem})", 429)


def no_route(question: Question, status: int) -> Reply:
    """Accounts and orders are not served; other paths are unknown."""
    room = question.path.partition("/api/v5/")[2].partition("/")[0]
    if room in _PRIVATE:
        return _no_account(question.headers)
    if status == 405:
        return error("50115", "Invalid request type.", status)
    names = {"error_code": "404", "error_message": "Not Found", "detailMsg": ""}
    body = {"code": 404, "data": {}, **names, "msg": "Not Found"}
    return Reply(msgspec.json.encode(body).decode(), status)


def _no_account(headers: Mapping[str, str]) -> Reply:
    if not headers.get("ok-access-key"):
        return error("50103", 'Request header "OK-ACCESS-KEY" can not be empty.', 401)
    reason = "trio_feed serves market data, no accounts"
    return error("50111", f"Invalid OK-ACCESS-KEY ({reason})", 401)


def simulated(venue: str) -> Reply:
    text = f"the data of {venue} is simulated; dialects.{venue}.simulated_ok = true serves it"
    return error("50030", f"You don't have permission to use this API endpoint ({text})", 403)
