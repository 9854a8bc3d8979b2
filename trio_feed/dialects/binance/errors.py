"""Binance's REST errors: ``{"code":-1121,"msg":".."}``.  Texts as of dialect-facts, section 1."""

from collections.abc import Callable
from math import ceil

import msgspec

from ...push.edge.work import Busy
from ...push.mounts import Question, Reply
from ...push.problems import NO_PLACE_S
from .profile import Profile

UNSUPPORTED = -1020
MILLISECONDS = (
    "This operation is not supported. (times of trio_feed are in milliseconds; leave the unit of "
    "microseconds out)"
)


class BadParameter(Exception):
    """A question is answered with this error."""

    def __init__(self, code: int, problem: str, status: int = 400) -> None:
        super().__init__(problem)
        self.code, self.status = code, status


def error(code: int, problem: str, status: int = 400, **headers: str) -> Reply:
    """A reply; ``headers`` have ``_`` in place of ``-``."""
    body = msgspec.json.encode({"code": code, "msg": problem}).decode()
    return Reply(body, status, {name.replace("_", "-"): text for name, text in headers.items()})


def busy(problem: Busy) -> Reply:
    """No turn at the work gate."""
    text = f"Too much request weight used; {problem}. Please use WebSocket Streams for live updates"
    return error(-1003, text, 429, Retry_After=str(ceil(problem.retry_after_s)))


def refuse(status: int, problem: str) -> Reply:
    """A request that the server does not let in (403, 421), has no place for (503), or that is no
    proper HTTP."""
    if status == 503:
        return error(-1003, f"Too many requests; {problem}.", 429, Retry_After=str(NO_PLACE_S))
    if status in (403, 421):
        return error(-1002, f"You are not authorized to execute this request. ({problem})", status)
    text = f"An unknown error occurred while processing the request. ({problem})"
    return error(-1000, text, status)


def no_route(profile: Profile) -> Callable[[Question, int], Reply]:
    """What is not served: orders and accounts, data that is not kept here, unknown paths."""

    def refusal(question: Question, status: int) -> Reply:
        path = question.path.removeprefix(profile.prefix)
        return not_passed(profile, question.method, path, status)

    return refusal


def not_passed(profile: Profile, method: str, path: str, status: int = 404) -> Reply:
    """It would go to the exchange as it is, if the settings said so."""
    named = f"{method} {path[:100]}"
    setting = f"dialects.{profile.venue}.passthrough = ['{named}']"
    problem = f"trio_feed does not serve {named}; {setting} passes it on to the exchange"
    return error(UNSUPPORTED, f"This operation is not supported. ({problem})", status)


class Signed:
    """Our own words to the client of a signed question: see :class:`..passing.Words`.

    The texts are the exchange's own, but that of 503, where it documents none."""

    def no_room(self, after_s: int) -> Reply:
        text = (
            f"Too much request weight used; trio_feed has no room for {after_s} s. Please use "
            "WebSocket Streams for live updates to avoid polling the API."
        )
        return error(-1003, text, 429, Retry_After=str(after_s))

    def not_sent(self, problem: str) -> Reply:
        text = f"Internal error; unable to process your request. Not sent: {problem}"
        return error(-1001, text, 503)

    def unknown(self) -> Reply:
        text = "Timeout waiting for response from backend server. Send status unknown; "
        return error(-1007, f"{text}execution status unknown.", 504)

    def not_let_in(self, problem: str) -> Reply:
        text = f"Invalid API-key, IP, or permissions for action. (trio_feed: {problem})"
        return error(-2015, text, 401)

    def too_large(self) -> Reply:
        return error(-1000, "An unknown error occurred while processing the request. (413)", 413)


def simulated(venue: str) -> Reply:
    text = f"the data of {venue} is simulated; dialects.{venue}.simulated_ok = true serves it"
    return error(UNSUPPORTED, text, 403)


def wants_microseconds(unit: str) -> bool:
    """By the header field of REST or the parameter of a WebSocket."""
    return unit.strip().upper() == "MICROSECOND"
