"""The chain behind a Solana node in a box, and what is asked of it by RPC.  Pure.

Every transaction lands in a slot.  A fork puts the next ones into slots that are skipped later:
those who listen to ``processed`` see them, nobody else; two of three land again after that,
the third never does.  What has landed for good is ``confirmed`` and ``finalized`` at once, as it is
within 150 ms on mainnet.

A block's time is the second in which its slot began, for all of its transactions.

RPC as agave answers it: getSlot, getBlockTime, getSignaturesForAddress, getTransaction, with the
codes -32004 (no such block yet), -32015 (a transaction of a version that was not asked for), -32016
(the node is not so far), -32602, -32601.
About two of five transactions are of version 1, as on mainnet since 2026-09.
"""

from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

import msgspec
from attrs import define, field, frozen

from ...venues.spinpet.solana import COMMITMENTS, is_signature
from .spinpet import Transaction

SLOT_MS = 400
_FIRST_SLOT_MS = 1_584_368_940_000
"""2020-03-16: mainnet-beta's slot 0, about."""
_KEPT = 100_000
_MOST_ROWS = 1000
_INVALID_PARAMS = -32602
_NEW_IN_FIVE = 2


def slot_at(now_ms: float) -> int:
    return int(now_ms - _FIRST_SLOT_MS) // SLOT_MS


def block_time_s(slot: int) -> int:
    return (_FIRST_SLOT_MS + slot * SLOT_MS) // 1000


@frozen
class Landed:
    """A transaction in its slot, for good."""

    transaction: Transaction
    slot: int
    time_s: int

    @property
    def version(self) -> int | str:
        number = sum(self.transaction.signature.encode()) % 5
        return 1 if number < _NEW_IN_FIVE else ("legacy" if number == 4 else 0)


class RpcError(Exception):
    """What the node answers instead of a result."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@define(eq=False)
class SolanaChain:
    """``landed`` is the truth, in the chain's order.

    ``nulls`` and ``logless``: the next so many answers to getTransaction are null, or without
    logs.  ``behind_slots``: RPC does not know newer ones than that.
    """

    landed: list[Landed] = field(factory=list)
    nulls: int = 0
    logless: int = 0
    behind_slots: int = 0
    _forked: int = 0
    _lost: int = 0
    _by_signature: dict[str, Landed] = field(factory=dict)
    _again: list[tuple[float, Transaction]] = field(factory=list)

    def fork(self, count: int) -> None:
        """The next ``count`` transactions are in slots that will be skipped."""
        self._forked += count

    def forget(self) -> None:
        """The node knows nothing of the past any more."""
        self.landed.clear()
        self._by_signature.clear()

    def happens(self, transaction: Transaction, now_ms: float) -> bool:
        """A transaction is executed.  Whether it landed for good; else it may land again later."""
        if not self._forked:
            self._land(transaction, now_ms)
            return True
        self._forked -= 1
        self._lost += 1
        if self._lost % 3:
            self._again.append((now_ms + 2 * SLOT_MS, transaction))
        return False

    def land_again(self, now_ms: float) -> list[Transaction]:
        """Those of skipped slots whose time has come: they land now."""
        due = [transaction for at_ms, transaction in self._again if at_ms <= now_ms]
        self._again = [item for item in self._again if item[0] > now_ms]
        for transaction in due:
            self._land(transaction, now_ms)
        return due

    def answer(self, body: bytes, now_ms: float) -> bytes:
        """One JSON-RPC request -> the reply."""
        request_id: Any = None
        try:
            request = _parsed(body)
            request_id = request.get("id")
            result = self._result(request, slot_at(now_ms) - self.behind_slots)
            reply: dict[str, Any] = {"result": result}
        except RpcError as error:
            reply = {"error": {"code": error.code, "message": str(error)}}
        return msgspec.json.encode({"jsonrpc": "2.0", **reply, "id": request_id})

    def _land(self, transaction: Transaction, now_ms: float) -> None:
        slot = slot_at(now_ms)
        landed = Landed(transaction, slot, block_time_s(slot))
        self.landed.append(landed)
        self._by_signature[transaction.signature] = landed
        if len(self.landed) > 2 * _KEPT:
            for old in self.landed[:_KEPT]:
                self._by_signature.pop(old.transaction.signature, None)
            del self.landed[:_KEPT]

    def _result(self, request: dict[str, Any], slot: int) -> Any:
        params = request.get("params")
        match request.get("method"), params if isinstance(params, list) else []:
            case "getSlot", [*options]:
                _options(options, slot, processed=True)
                return slot
            case "getBlockTime", [int(asked)]:
                if asked > slot:
                    raise RpcError(-32004, f"Block not available for slot {asked}")
                return block_time_s(asked)
            case "getSignaturesForAddress", [str(account), *options]:
                return self._signatures(account, _options(options, slot), slot)
            case "getTransaction", [str(signature), *options]:
                if not is_signature(signature):
                    raise RpcError(_INVALID_PARAMS, "Invalid param: WrongSize")
                return self._transaction(signature, _options(options, slot), slot)
            case "getSignaturesForAddress" | "getTransaction" | "getBlockTime", _:
                raise RpcError(_INVALID_PARAMS, "`params` should have at least 1 argument(s)")
        raise RpcError(-32601, "Method not found")

    def _signatures(self, account: str, options: dict[str, Any], slot: int) -> list[Any]:
        limit = options.get("limit", _MOST_ROWS)
        if type(limit) is not int or not 1 <= limit <= _MOST_ROWS:
            raise RpcError(_INVALID_PARAMS, f"Invalid limit; max {_MOST_ROWS}")
        known = self.landed[: bisect_right(self.landed, slot, key=lambda item: item.slot)]
        before, until = options.get("before"), options.get("until")
        if before is not None:
            at = _index(known, before)
            known = [] if at is None else known[:at]
        rows: list[Any] = []
        for item in reversed(known):
            if item.transaction.signature == until or len(rows) == limit:
                break
            if account in item.transaction.mentions:
                rows.append(_row(item))
        return rows

    def _transaction(self, signature: str, options: dict[str, Any], slot: int) -> Any:
        if self.nulls:
            self.nulls -= 1
            return None
        item = self._by_signature.get(signature)
        if item is None or item.slot > slot:
            return None
        most = options.get("maxSupportedTransactionVersion")
        if item.version != "legacy" and (type(most) is not int or most < int(item.version)):
            said = (
                f"Transaction version ({item.version}) is not supported by the requesting client. "
                "Please try the request again with the following configuration parameter: "
                f'"maxSupportedTransactionVersion": {item.version}'
            )
            raise RpcError(-32015, said)
        logs: tuple[str, ...] | None = item.transaction.logs
        if self.logless:
            self.logless -= 1
            logs = None
        meta = {"err": item.transaction.err, "logMessages": logs, "fee": 5000}
        message: dict[str, Any] = {"accountKeys": sorted(item.transaction.mentions)}
        if item.version != "legacy":  # some come out of a lookup table
            keys = message["accountKeys"]
            message["accountKeys"], loaded = keys[::2], keys[1::2]
            message["addressTableLookups"] = [{"readonlyIndexes": [*range(len(loaded))]}]
            meta["loadedAddresses"] = {"writable": [], "readonly": loaded}
        return {
            "slot": item.slot,
            "blockTime": item.time_s,
            "version": item.version,
            "meta": meta,
            "transaction": {"signatures": [signature], "message": message},
        }


def _index(landed: list[Landed], signature: Any) -> int | None:
    for at in range(len(landed) - 1, -1, -1):
        if landed[at].transaction.signature == signature:
            return at
    return None


def _row(item: Landed) -> dict[str, Any]:
    return {
        "signature": item.transaction.signature,
        "slot": item.slot,
        "err": item.transaction.err,
        "memo": None,
        "blockTime": item.time_s,
        "confirmationStatus": "finalized",
    }


def _options(given: Iterable[Any], slot: int, *, processed: bool = False) -> dict[str, Any]:
    options = next(iter(given), None)
    options = {} if options is None else options
    if not isinstance(options, dict):
        raise RpcError(_INVALID_PARAMS, "Invalid params: invalid type")
    commitment = options.get("commitment", "finalized")
    if commitment not in COMMITMENTS:
        raise RpcError(_INVALID_PARAMS, "Invalid params: unknown variant")
    if commitment == "processed" and not processed:
        raise RpcError(_INVALID_PARAMS, "Method does not support commitment below `confirmed`")
    least = options.get("minContextSlot", 0)
    if type(least) is not int or least > slot:
        raise RpcError(-32016, "Minimum context slot has not been reached")
    return options


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        request = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise RpcError(-32700, "Parse error") from error
    if not isinstance(request, dict) or request.get("jsonrpc") != "2.0":
        raise RpcError(-32600, "Invalid request")
    return request
