"""Solana's RPC over HTTP: what was in the chain, asked for afterwards.  Pure.

Sources: https://solana.com/docs/rpc/http (getSlot, getBlockTime,
getSignaturesForAddress, getTransaction), read 2026-11.  What is easily done wrong:

- ``maxSupportedTransactionVersion`` must be the integer 1.  Without it, or with 0, every
  transaction of version 1 (mainnet, since 2026-09-15) is refused with -32015.
- getSignaturesForAddress and getTransaction know no ``processed``: ``confirmed`` is asked instead.
- getTransaction answers null for what it does not have, or not yet at that commitment.
- ``meta.logMessages`` may be null, ``blockTime`` as well.
- The rows of one slot seem to come in reversed order of the chain, as those of different slots do.
  Nothing that is documented says so.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from ...errors import BadMessage
from ...rest_dialects import MALFORMED
from ...transactions import SignaturePage, SignatureRow
from .solana import MOST_SLOTS, TransactionLogs, is_signature, sample

MOST_SIGNATURES = 1000
"""Rows of one answer."""
VERSION = 1
"""The newest version of transactions that is asked for."""
_RPC_ID = 1
_NO_BLOCK = frozenset({-32001, -32004, -32007, -32009, -32014})
"""agave, rpc-client-api ``custom_error.rs``."""


class RpcRefused(BadMessage):
    """The node answered with a JSON-RPC error; ``code`` is its number."""

    def __init__(self, code: int, problem: str) -> None:
        super().__init__(f"{code} {problem}".strip())
        self.code = code


class _Form(msgspec.Struct):
    """Base of the wire forms: unknown extra fields are welcome."""


class _Error(_Form):
    code: int = 0
    message: str = ""


class _Reply(_Form):
    result: msgspec.Raw = msgspec.Raw(b"")
    error: _Error | None = None


class _Row(_Form):
    signature: str
    slot: int
    err: Any = None
    blockTime: int | None = None


class _Loaded(_Form):
    writable: tuple[str, ...] = ()
    readonly: tuple[str, ...] = ()


class _Keys(_Form):
    accountKeys: tuple[str, ...] = ()
    addressTableLookups: tuple[Any, ...] | None = None


class _Meta(_Form):
    err: Any = None
    loadedAddresses: _Loaded | None = None
    logMessages: tuple[str, ...] | None = None


class _Signed(_Form):
    signatures: tuple[str, ...]
    message: msgspec.Raw = msgspec.Raw(b"{}")


class _Transaction(_Form):
    slot: int
    transaction: _Signed
    meta: _Meta | None
    blockTime: int | None = None


_reply: Callable[[bytes], _Reply] = msgspec.json.Decoder(_Reply).decode


def slot_body(commitment: str) -> bytes:
    """getSlot."""
    return _body("getSlot", {"commitment": commitment})


def signatures_body(
    address: str,
    commitment: str,
    limit: int,
    before: str | None,
    until: str | None,
    min_slot: int = 0,
) -> bytes:
    """getSignaturesForAddress.  A node that has not reached ``min_slot`` refuses with -32016 (it
    is no filter): the nodes behind one address are not equally far.  Raises ValueError for a
    ``limit`` outside of 1..1000."""
    if not 1 <= limit <= MOST_SIGNATURES:
        raise ValueError(f"{limit} rows are not between 1 and {MOST_SIGNATURES}")
    options: dict[str, str | int] = {"limit": limit, "commitment": _settled(commitment)}
    if before is not None:
        options["before"] = before
    if until is not None:
        options["until"] = until
    if min_slot:
        options["minContextSlot"] = min_slot
    return _body("getSignaturesForAddress", address, options)


def transaction_body(signature: str, commitment: str) -> bytes:
    """getTransaction."""
    options = {
        "encoding": "json",
        "commitment": _settled(commitment),
        "maxSupportedTransactionVersion": VERSION,
    }
    return _body("getTransaction", signature, options)


def block_time_body(slot: int) -> bytes:
    """getBlockTime."""
    return _body("getBlockTime", slot)


def parse_block_time(body: bytes) -> int | None:
    """Unix ms.  None: the node cannot say, because the slot was skipped (-32007, -32009), is too
    new (-32004, -32014) or too old (-32001), or because it is not known (null).  Raises RpcRefused
    where it refuses for another reason, BadMessage."""
    try:
        return _ms(_result(body, int | None)) or None
    except RpcRefused as error:
        if error.code in _NO_BLOCK:
            return None
        raise


def parse_slot(body: bytes) -> int:
    """Raises RpcRefused, BadMessage."""
    slot = _result(body, int)
    if not 0 <= slot < MOST_SLOTS:
        raise BadMessage(f"{slot} is not a slot", sample(body))
    return int(slot)


def parse_signatures(body: bytes) -> SignaturePage:
    """Odd rows are left out and stay counted.  Raises RpcRefused, BadMessage."""
    items = _result(body, list[msgspec.Raw])
    rows = tuple(row for item in items if (row := _row(item)) is not None)
    return SignaturePage(rows, len(items))


def parse_transaction(body: bytes) -> TransactionLogs | None:
    """None: the node does not have it, or not yet.  Raises RpcRefused, BadMessage."""
    found = _result(body, _Transaction | None)
    if found is None:
        return None
    signatures = found.transaction.signatures
    if not signatures or not is_signature(signatures[0]) or not 0 <= found.slot < MOST_SLOTS:
        raise BadMessage("a transaction without a signature or a slot", sample(body))
    meta = found.meta or _Meta()
    return TransactionLogs(
        signatures[0],
        found.slot,
        meta.err is not None,
        meta.logMessages,
        _ms(found.blockTime),
        _accounts(found.transaction.message, meta.loadedAddresses),
    )


def _accounts(message: msgspec.Raw, loaded: _Loaded | None) -> frozenset[str] | None:
    """All of them, those of lookup tables included; None where they are not all said."""
    try:
        keys = msgspec.json.decode(message, type=_Keys)
    except MALFORMED:
        return None
    if not keys.accountKeys or (keys.addressTableLookups and loaded is None):
        return None
    more = () if loaded is None else (*loaded.writable, *loaded.readonly)
    return frozenset((*keys.accountKeys, *more))


def _row(item: msgspec.Raw) -> SignatureRow | None:
    try:
        row = msgspec.json.decode(item, type=_Row)
    except MALFORMED:
        return None
    if not is_signature(row.signature) or not 0 <= row.slot < MOST_SLOTS:
        return None
    return SignatureRow(row.signature, row.slot, row.err is not None, _ms(row.blockTime))


def _ms(block_time: int | None) -> int:
    """Seconds -> milliseconds; 0 for what is missing or no time."""
    return block_time * 1000 if block_time is not None and 10**9 <= block_time <= 4 * 10**9 else 0


def _settled(commitment: str) -> str:
    return "confirmed" if commitment == "processed" else commitment


def _body(method: str, *params: Any) -> bytes:
    request = {"jsonrpc": "2.0", "id": _RPC_ID, "method": method, "params": params}
    return msgspec.json.encode(request)


def _result(body: bytes, kind: Any) -> Any:
    try:
        reply = _reply(body)
        if reply.error is not None:
            raise RpcRefused(reply.error.code, " ".join(reply.error.message.split())[:200])
        return msgspec.json.decode(reply.result, type=kind)
    except MALFORMED as error:
        raise BadMessage(f"malformed: {error}", sample(body)) from None
