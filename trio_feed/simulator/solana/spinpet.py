"""Spin Pet's transactions, made up: a seeded random walk of a few mints as Solana log lines.

The shapes are those of real transactions: a compute budget call first, our program called by the
user or by a router, token transfers inside it, routers that log data of their own (even bytes that
look like our events), events without a price, several events in one transaction, failures, logs
that are cut off, and transactions of strangers.  The Borsh layouts are written down here a second
time, so that the decoder is tested against something it did not write.
"""

import random
from base64 import b64encode
from collections import deque
from collections.abc import Mapping

from attrs import define, field, frozen
from base58 import b58encode

from ..market.prices import noise

COMPUTE_BUDGET = "ComputeBudget111111111111111111111111111111"
TOKEN_PROGRAM = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"
LOG_BYTES = 10_000
"""A transaction's log is cut off there (agave's LogCollector)."""

_SIZES = {"u8": 1, "bool": 1, "u16": 2, "u32": 4, "u64": 8, "u128": 16, "key": 32}
_BUY_SELL = """payer:key mint_account:key is_buy:bool token_amount:u64 sol_amount:u64
    latest_price:u128"""
_FULL_CLOSE = """payer:key user_sol_account:key mint_account:key is_close_long:bool
    final_token_amount:u64 final_sol_amount:u64 user_close_profit:u64 latest_price:u128
    order_pda:key"""
_ORDER = """order_type:u8 mint:key user:key lock_lp_start_price:u128 lock_lp_end_price:u128
    lock_lp_sol_amount:u64 lock_lp_token_amount:u64 start_time:u32 end_time:u32
    margin_sol_amount:u64 borrow_amount:u64 position_asset_amount:u64 borrow_fee:u16"""
_LAYOUTS = {
    "BuySellEvent": ("62d0783c5d2013b4", _BUY_SELL),
    "LongShortEvent": (
        "1b4514743afa5fdc",
        f"payer:key mint_account:key order_pda:key latest_price:u128 {_ORDER}",
    ),
    "FullCloseEvent": ("16f471f59aa86d8b", _FULL_CLOSE),
    "PartialCloseEvent": ("855e03de1844459b", f"{_FULL_CLOSE} {_ORDER}"),
    "TokenCreated": ("607a718a32e39539", "payer:key mint_account:key"),
    "ForceLiquidate": ("eac4b769281ace30", "payer:key mint_account:key order_pda:key"),
    "MilestoneDiscount": ("82e80b2522b98880", "payer:key mint_account:key"),
}
"""Discriminator and fields.  Those of the last three are a guess: nobody reads them."""
PRICE_EVENTS = ("BuySellEvent", "LongShortEvent", "FullCloseEvent", "PartialCloseEvent")
OTHER_EVENTS = ("TokenCreated", "ForceLiquidate", "MilestoneDiscount")


def fields_of(event: str) -> dict[str, str]:
    """Names and Borsh types of an event's fields, in order."""
    return dict(text.split(":") for text in _LAYOUTS[event][1].split())


def encode_event(event: str, values: Mapping[str, int | bytes]) -> bytes:
    """Discriminator and fields; a field that is not in ``values`` is zero.

    Raises OverflowError for a value that does not fit its type.
    """
    parts = [bytes.fromhex(_LAYOUTS[event][0])]
    for name, kind in fields_of(event).items():
        value = values.get(name, 0)
        size = _SIZES[kind]
        parts.append(value if isinstance(value, bytes) else int(value).to_bytes(size, "little"))
        if len(parts[-1]) != size:
            raise OverflowError(f"{name} is {len(parts[-1])} bytes, not {size}")
    return b"".join(parts)


@define
class LogWriter:
    """Writes log lines as the runtime does.  ``cut`` lines are those behind the byte limit."""

    lines: list[str] = field(factory=list)
    programs: set[str] = field(factory=set)
    accounts: set[str] = field(factory=set)
    """What else the transaction touches; the logs need not say it."""
    cut: int = 0
    _stack: list[str] = field(factory=list)
    _bytes: int = 0

    def invoke(self, program: str) -> None:
        self._stack.append(program)
        self.programs.add(program)
        self._put(f"Program {program} invoke [{len(self._stack)}]")

    def success(self, units: int = 0) -> None:
        """``units`` 0: a program of the runtime's own, which does not say what it consumed."""
        if units:
            self._put(f"Program {self._stack[-1]} consumed {units} of 200000 compute units")
        self._put(f"Program {self._stack.pop()} success")

    def fail(self, reason: str, units: int = 40_000) -> None:
        self._put(f"Program {self._stack[-1]} consumed {units} of 200000 compute units")
        self._put(f"Program {self._stack.pop()} failed: {reason}")

    def log(self, text: str) -> None:
        self._put(f"Program log: {text}")

    def data(self, data: bytes) -> int | None:
        """Returns the line's index, None where it is cut off."""
        return self._put(f"Program data: {b64encode(data).decode()}")

    def _put(self, line: str) -> int | None:
        if self._bytes + len(line) >= LOG_BYTES:
            if not self.cut:
                self.lines.append("Log truncated")
            self.cut += 1
            return None
        self._bytes += len(line)
        self.lines.append(line)
        return None if self.cut else len(self.lines) - 1


@frozen
class Quote:
    """A price as it was put on chain: ``price`` has 28 decimals, ``index`` is its log line."""

    mint: str
    price: int
    index: int


@frozen
class Transaction:
    """``quotes`` are the prices that a reader must find in it; none in a failed one."""

    signature: str
    failed: bool
    logs: tuple[str, ...]
    mentions: frozenset[str]
    quotes: tuple[Quote, ...]

    @property
    def err(self) -> object:
        return {"InstructionError": [1, {"Custom": 6001}]} if self.failed else None


@define(eq=False)
class SpinPetMarket:
    """The mints and their prices.  Same seed, same transactions.

    ``recent`` are the latest transactions, oldest first.
    """

    seed: int
    mint_count: int = 3
    per_minute: float = 60.0
    """Transactions, those of strangers included; the gaps between them are random."""
    talkative: bool = True
    """A few write more than a log holds: prices that nobody can have."""
    program_id: str = field(init=False)
    mints: tuple[str, ...] = field(init=False)
    recent: deque[Transaction] = field(init=False, factory=lambda: deque(maxlen=10_000))
    _prices: dict[str, int] = field(init=False)
    _keys: dict[str, bytes] = field(init=False, factory=dict)
    _names: dict[str, str] = field(init=False, factory=dict)
    _random: random.Random = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self.program_id = self._key("program")
        self.mints = tuple(self._key(f"mint {n}") for n in range(self.mint_count))
        self._prices = {mint: 28 * 10**18 * (n + 1) for n, mint in enumerate(self.mints)}

    def gap_s(self) -> float:
        """Seconds to the next transaction."""
        return self._random.expovariate(self.per_minute / 60)

    def next_transaction(self) -> Transaction:
        shape = self._random.choices(
            (self._direct, self._routed, self._several, self._other, self._broken, self._stranger,
             self._talkative),
            (40, 20, 15, 10, 10, 4, 1 if self.talkative else 0),
        )[0]  # fmt: skip
        writer = LogWriter()
        writer.invoke(COMPUTE_BUDGET)
        writer.success()
        quotes, failed = shape(writer), shape == self._broken
        transaction = Transaction(
            b58encode(b"\x01" + self._random.randbytes(63)).decode(),
            failed,
            tuple(writer.lines),
            frozenset(writer.programs | writer.accounts),
            () if failed else tuple(quotes),
        )
        self.recent.append(transaction)
        return transaction

    def _direct(self, writer: LogWriter) -> list[Quote]:
        writer.invoke(self.program_id)
        writer.log("Instruction: Buy")
        quotes = self._trade(writer, "BuySellEvent")
        writer.success(88_000)
        return quotes

    def _routed(self, writer: LogWriter) -> list[Quote]:
        """A router calls us, and logs the very bytes of an event of ours as its own."""
        writer.invoke(self._key("router"))
        quotes = self._direct(writer)
        writer.data(self._event("BuySellEvent", self.mints[0]))
        writer.success(120_000)
        return quotes

    def _several(self, writer: LogWriter) -> list[Quote]:
        writer.invoke(self.program_id)
        quotes = self._trade(writer, "LongShortEvent") + self._trade(writer, "PartialCloseEvent")
        writer.data(self._event("ForceLiquidate", self._any_mint()))
        quotes += self._trade(writer, "FullCloseEvent")
        writer.success(190_000)
        return quotes

    def _other(self, writer: LogWriter) -> list[Quote]:
        writer.invoke(self.program_id)
        writer.data(self._event(self._random.choice(OTHER_EVENTS), self._any_mint()))
        writer.success(30_000)
        return []

    def _broken(self, writer: LogWriter) -> list[Quote]:
        before = dict(self._prices)
        writer.invoke(self.program_id)
        quotes = self._trade(writer, "BuySellEvent")
        self._prices = before
        writer.log("AnchorError occurred. Error Code: ExceedsSlippage. Error Number: 6001.")
        writer.fail("custom program error: 0x1771")
        return quotes

    def _stranger(self, writer: LogWriter) -> list[Quote]:
        writer.invoke(self._key("stranger"))
        writer.data(self._event("BuySellEvent", self.mints[0]))
        writer.success(9_000)
        return []

    def _talkative(self, writer: LogWriter) -> list[Quote]:
        """The second event is behind the limit; short lines may still follow."""
        writer.invoke(self.program_id)
        quotes = self._trade(writer, "BuySellEvent")
        for _ in range(100):
            writer.log("x" * 97)
        quotes += self._trade(writer, "BuySellEvent")
        writer.success(199_000)
        return quotes

    def _trade(self, writer: LogWriter, event: str) -> list[Quote]:
        """A token transfer and a price event of a new price."""
        mint = self._any_mint()
        writer.accounts.add(mint)
        writer.invoke(TOKEN_PROGRAM)
        writer.log("Instruction: TransferChecked")
        writer.success(6_200)
        change = self._random.randint(-10_000, 10_000)
        self._prices[mint] = max(1, self._prices[mint] * (1_000_000 + change) // 1_000_000)
        index = writer.data(self._event(event, mint))
        return [] if index is None else [Quote(mint, self._prices[mint], index)]

    def _event(self, event: str, mint: str) -> bytes:
        values: dict[str, int | bytes] = {
            name: noise(32, self.seed, name) if kind == "key" else self._random.randint(0, 1)
            for name, kind in fields_of(event).items()
        }
        values |= {"mint_account": self._keys[mint], "mint": self._keys[mint]}
        return encode_event(event, values | {"latest_price": self._prices[mint]})

    def _any_mint(self) -> str:
        return self._random.choice(self.mints)

    def _key(self, name: str) -> str:
        """A public key in base58, the same for the same name."""
        if name not in self._names:
            data = noise(32, self.seed, "spinpet", name)
            text = self._names[name] = b58encode(data).decode()
            self._keys[text] = data
        return self._names[name]
