"""Solana's WebSocket side: ``logsSubscribe`` JSON-RPC, and what a transaction's log lines say.

Sources: https://solana.com/docs/rpc/websocket/logssubscribe, and agave's ``stable_log`` and
``LogCollector``, which write the lines.  The lines of a transaction are one flat list; which
program said something is known only by walking the call stack:

::

    Program <id> invoke [n]      pushes; n is the depth, the outermost is 1
    Program data: <base64> ...   an event of the program on top (``sol_log_data``)
    Program log: ..., Program return: ..., Program <id> consumed ...      say nothing here
    Program <id> success         pops
    Program <id> failed: ...     pops, and what it and its callees did is rolled back
    Log truncated                from here on lines are missing

A collector that is full writes ``Log truncated`` once and drops the line, yet it still takes later
lines that are short enough.  Behind it the stack is therefore unknown, and nothing is read.
"""

import re
from base64 import b64decode
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from attrs import frozen
from base58 import b58decode

from ...errors import BadMessage
from ...rest_dialects import MALFORMED
from ..base import Ack

COMMITMENTS = ("processed", "confirmed", "finalized")
MOST_SLOTS = 2**35
"""More than 200 years of slots; a larger number is none."""

_KEY = "[1-9A-HJ-NP-Za-km-z]{32,44}"
_SIGNATURE = re.compile("[1-9A-HJ-NP-Za-km-z]{64,88}")
_FRAME_LINE = re.compile(rf"Program ({_KEY}) (?:invoke \[(\d{{1,4}})\]|(success)|failed: .*)", re.S)
_DATA = "Program data: "
_TRUNCATED = "Log truncated"


@frozen
class LogData:
    """One ``Program data`` line.  ``index`` is its place in the transaction's log list."""

    program: str
    index: int
    text: str
    """Base64; several slices are apart by spaces."""

    def decode(self) -> bytes:
        """The slices' bytes, joined.  Raises BadMessage."""
        try:
            return b"".join(b64decode(part, validate=True) for part in self.text.split(" "))
        except ValueError as error:
            raise BadMessage(f"log {self.index} is not base64: {error}", self.text) from None


@frozen
class TransactionLogs:
    """What a notification or getTransaction says.  ``failed``: the transaction has an error and
    changed nothing.  ``logs`` None: the node kept none.  ``time_ms`` is the block's time, 0 where
    it is not said.  ``accounts``: all that the transaction names; None: not said, or not all."""

    signature: str
    slot: int
    failed: bool
    logs: tuple[str, ...] | None
    time_ms: int = 0
    accounts: frozenset[str] | None = None


class _Form(msgspec.Struct):
    """Base of the wire forms: unknown extra fields are welcome, missing ones are not."""


class _Context(_Form):
    slot: int


class _Value(_Form):
    signature: str
    err: Any
    logs: tuple[str, ...]


class _Result(_Form):
    context: _Context
    value: _Value


class _Params(_Form):
    result: _Result
    subscription: int


class _Notification(_Form):
    params: _Params


class _Error(_Form):
    code: int
    message: str = ""


class _Message(_Form):
    method: str | None = None
    id: int | str | None = None
    result: int | bool | None = None
    error: _Error | None = None


_message: Callable[[str | bytes], _Message] = msgspec.json.Decoder(_Message).decode
_notification: Callable[[str | bytes], _Notification] = msgspec.json.Decoder(_Notification).decode


def is_pubkey(text: str) -> bool:
    """Is it 32 bytes in base58?"""
    return re.fullmatch(_KEY, text) is not None and len(b58decode(text)) == 32


def is_signature(text: str) -> bool:
    """Does it look like a transaction's signature (64 bytes in base58)?"""
    return _SIGNATURE.fullmatch(text) is not None


def logs_subscribe(request_id: int, mentions: str, commitment: str) -> str:
    """The request for the logs of every transaction that names the account ``mentions`` (the
    server takes exactly one per request).  Answered by an Ack named ``str(request_id)``."""
    request = {
        "jsonrpc": "2.0",
        "id": request_id,
        "method": "logsSubscribe",
        "params": [{"mentions": [mentions]}, {"commitment": commitment}],
    }
    return msgspec.json.encode(request).decode()


def parse_message(raw: str | bytes) -> Ack | TransactionLogs:
    """One JSON-RPC message: the reply to a request or a logsNotification.  Raises BadMessage."""
    try:
        message = _message(raw)
        if message.method is None:
            return _reply(message)
        if message.method != "logsNotification":
            raise BadMessage(f"unknown method {message.method!r}")
        result = _notification(raw).params.result
    except MALFORMED as error:
        raise BadMessage(f"malformed: {error}", sample(raw)) from None
    except BadMessage as error:
        raise BadMessage(str(error), sample(raw)) from None
    value = result.value
    if not is_signature(value.signature):
        raise BadMessage("not a transaction signature", sample(raw))
    if not 0 <= result.context.slot < MOST_SLOTS:
        raise BadMessage(f"{result.context.slot} is not a slot", sample(raw))
    return TransactionLogs(value.signature, result.context.slot, value.err is not None, value.logs)


def _reply(message: _Message) -> Ack:
    name = "" if message.id is None else str(message.id)
    if message.error is not None:
        return Ack(name, f"{message.error.code} {message.error.message}".strip())
    if message.result is None or not name:
        raise BadMessage("neither a notification nor a reply")
    return Ack(name)


def walk(
    logs: Sequence[str], program: str, *, keep_failed: bool = False
) -> tuple[list[LogData], bool]:
    """What ``program`` logged as data, in order, and whether the logs are truncated.

    Data of a failed invocation, and of what it invoked, is left out unless ``keep_failed``.
    Invocations that are open where the logs are truncated count as successful, as they are in a
    transaction that is.  Raises BadMessage where the lines do not nest: then nobody can say whose
    any of the data is.
    """
    stack: list[tuple[str, int]] = []
    found: list[LogData] = []
    for index, line in enumerate(logs):
        if line == _TRUNCATED:
            return found, True
        if line.startswith(_DATA):
            if not stack:
                raise BadMessage(f"log {index}: data outside of any program", line)
            if stack[-1][0] == program:
                found.append(LogData(program, index, line.removeprefix(_DATA)))
        elif (frame := _FRAME_LINE.fullmatch(line)) is not None:
            kept = _step(stack, frame, len(found))
            if not keep_failed:
                del found[kept:]
    if stack:
        raise BadMessage(f"the logs end inside {stack[-1][0]}")
    return found, False


def _step(stack: list[tuple[str, int]], frame: re.Match[str], count: int) -> int:
    """Push or pop.  Returns how many of the ``count`` findings so far remain."""
    program, depth, success = frame.groups()
    if depth is not None:
        if int(depth) != len(stack) + 1:
            raise BadMessage("the depth of an invocation does not fit", frame[0])
        stack.append((program, count))
        return count
    if not stack or stack[-1][0] != program:
        raise BadMessage("a program ends that is not on top of the stack", frame[0])
    _, before = stack.pop()
    return count if success is not None else before


def sample(raw: str | bytes) -> str:
    """The beginning of a message, for a log line."""
    return raw[:200].decode(errors="replace") if isinstance(raw, bytes) else raw[:200]
