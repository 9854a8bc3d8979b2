"""OKX's errors.  REST: ``{"code":"51001","data":[],"msg":".."}``, mostly in a 200.

Sources: "Error Code" of www.okx.com/docs-v5 (2026-07-20); dialect-facts, section 3.  What is ours
to say stands behind OKX's own words, in brackets.
"""

from math import ceil

import msgspec
from attrs import evolve

from ...push.edge.work import Busy
from ...push.mounts import Question, Reply
from ...push.problems import NO_PLACE_S

UNKNOWN_INSTRUMENT = "Instrument ID, Instrument ID code, or Spread ID doesn't exist."
_NOT_PERMITTED = "You don't have permission to use this API endpoint"
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
    return _too_many(str(problem), ceil(problem.retry_after_s))


def refuse(status: int, problem: str) -> Reply:
    """A request that the server does not let in (403, 421), has no place for (503), or that is no
    proper HTTP."""
    if status == 503:
        return _too_many(problem, NO_PLACE_S)
    if status in (403, 421):
        return error("50030", f"{_NOT_PERMITTED} ({problem})", status)
    return error("51000", f"Parameter error. (trio_feed: {problem})", status)


def _too_many(problem: str, after_s: int) -> Reply:
    reply = error("50011", f"Too Many Requests (trio_feed: {problem})", 429)
    return evolve(reply, headers={"Retry-After": str(after_s)})


def no_route(question: Question, status: int) -> Reply:
    """Accounts and orders are not served; other paths are unknown."""
    room = question.path.partition("/api/v5/")[2].partition("/")[0]
    if room in _PRIVATE:
        return _no_account(question)
    if status == 405:
        return error("50115", "Invalid request type.", status)
    names = {"error_code": "404", "error_message": "Not Found", "detailMsg": ""}
    body = {"code": 404, "data": {}, **names, "msg": "Not Found"}
    return Reply(msgspec.json.encode(body).decode(), status)


def _no_account(question: Question) -> Reply:
    path = question.path.removeprefix("/okx")[:100]
    setting = f"dialects.okx.passthrough = ['{question.method} {path}']"
    reason = f"trio_feed serves market data, no accounts; {setting} passes it on to the exchange"
    if not question.headers.get("ok-access-key"):
        text = 'Request header "OK-ACCESS-KEY" can not be empty.'
        return error("50103", f"{text} ({reason})", 401)
    return error("50111", f"Invalid OK-ACCESS-KEY ({reason})", 401)


class Signed:
    """Our own words to the client of a signed question: see :class:`..passing.Words`.

    Codes and statuses are OKX's own ("Error Code - REST API", 2026-07-20), but for 413."""

    def no_room(self, after_s: int) -> Reply:
        return _too_many(f"no room for {after_s} s", after_s)

    def not_sent(self, problem: str) -> Reply:
        return error("50001", f"{UNAVAILABLE} (trio_feed: not sent: {problem})", 503)

    def unknown(self) -> Reply:
        text = (
            "API endpoint request timeout (does not mean that the request was successful or "
            "failed, please check the request result)."
        )
        return error("50004", text, 400)

    def not_let_in(self, problem: str) -> Reply:
        return error("50111", f"Invalid OK-ACCESS-KEY (trio_feed: {problem})", 401)

    def too_large(self) -> Reply:
        return error("50002", "JSON syntax error (trio_feed: the body is too large)", 413)


def simulated(venue: str) -> Reply:
    text = f"the data of {venue} is simulated; dialects.{venue}.simulated_ok = true serves it"
    return error("50030", f"{_NOT_PERMITTED} ({text})", 403)
