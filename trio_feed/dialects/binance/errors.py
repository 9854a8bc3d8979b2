"""Binance's REST errors: ``{"code":-1121,"msg":".."}``.  Texts as of dialect-facts, section 1."""

from math import ceil

import msgspec

from ...push.edge.work import Busy
from ...push.mounts import Question, Reply

UNSUPPORTED = -1020


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


def no_route(question: Question, status: int) -> Reply:
    """What is not served: orders and accounts, data that is not kept here, unknown paths."""
    path = question.path[:100]
    return error(UNSUPPORTED, f"This operation is not supported. (trio_feed: {path})", status)


def simulated(venue: str) -> Reply:
    text = f"the data of {venue} is simulated; dialects.{venue}.simulated_ok = true serves it"
    return error(UNSUPPORTED, text, 403)
