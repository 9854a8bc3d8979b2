"""The events of the Spin Pet program, as their bytes are laid out on chain.

An event is Anchor's: eight bytes of discriminator, then the fields in Borsh.  Source: the event
tables of issue 3 and section 3 of the user's K-line push document.  Amounts are in the smallest
unit of the token or of SOL, prices integers of :data:`PRICE_DECIMALS` decimals, public keys
base58, times unix seconds.  Bytes behind the last known field are ignored.
"""

from collections.abc import Callable
from decimal import Decimal

from attrs import frozen

from ...errors import BadMessage
from .borsh import BorshReader

PRICE_DECIMALS = 28
_DISCRIMINATOR_BYTES = 8


@frozen
class BuySellEvent:
    """A token was bought or sold."""

    payer: str
    mint_account: str
    is_buy: bool
    token_amount: int
    sol_amount: int
    latest_price: int

    @classmethod
    def read(cls, data: BorshReader) -> "BuySellEvent":
        return cls(
            payer=data.pubkey(),
            mint_account=data.pubkey(),
            is_buy=data.boolean(),
            token_amount=data.u64(),
            sol_amount=data.u64(),
            latest_price=data.u128(),
        )


@frozen
class Order:
    """The leveraged order that LongShortEvent and PartialCloseEvent end with."""

    order_type: int
    mint: str
    user: str
    lock_lp_start_price: int
    lock_lp_end_price: int
    lock_lp_sol_amount: int
    lock_lp_token_amount: int
    start_time: int
    end_time: int
    margin_sol_amount: int
    borrow_amount: int
    position_asset_amount: int
    borrow_fee: int

    @classmethod
    def read(cls, data: BorshReader) -> "Order":
        return cls(
            order_type=data.u8(),
            mint=data.pubkey(),
            user=data.pubkey(),
            lock_lp_start_price=data.u128(),
            lock_lp_end_price=data.u128(),
            lock_lp_sol_amount=data.u64(),
            lock_lp_token_amount=data.u64(),
            start_time=data.u32(),
            end_time=data.u32(),
            margin_sol_amount=data.u64(),
            borrow_amount=data.u64(),
            position_asset_amount=data.u64(),
            borrow_fee=data.u16(),
        )


@frozen
class LongShortEvent:
    """A leveraged position was opened."""

    payer: str
    mint_account: str
    order_pda: str
    latest_price: int
    order: Order

    @classmethod
    def read(cls, data: BorshReader) -> "LongShortEvent":
        return cls(
            payer=data.pubkey(),
            mint_account=data.pubkey(),
            order_pda=data.pubkey(),
            latest_price=data.u128(),
            order=Order.read(data),
        )


@frozen
class FullCloseEvent:
    """A leveraged position was closed."""

    payer: str
    user_sol_account: str
    mint_account: str
    is_close_long: bool
    final_token_amount: int
    final_sol_amount: int
    user_close_profit: int
    latest_price: int
    order_pda: str

    @classmethod
    def read(cls, data: BorshReader) -> "FullCloseEvent":
        return cls(
            payer=data.pubkey(),
            user_sol_account=data.pubkey(),
            mint_account=data.pubkey(),
            is_close_long=data.boolean(),
            final_token_amount=data.u64(),
            final_sol_amount=data.u64(),
            user_close_profit=data.u64(),
            latest_price=data.u128(),
            order_pda=data.pubkey(),
        )


@frozen
class PartialCloseEvent:
    """A part of a leveraged position was closed: what a full close says, and then the order."""

    close: FullCloseEvent
    order: Order

    @property
    def mint_account(self) -> str:
        return self.close.mint_account

    @property
    def latest_price(self) -> int:
        return self.close.latest_price

    @classmethod
    def read(cls, data: BorshReader) -> "PartialCloseEvent":
        return cls(close=FullCloseEvent.read(data), order=Order.read(data))


PriceEvent = BuySellEvent | LongShortEvent | FullCloseEvent | PartialCloseEvent

_EVENTS: dict[bytes, tuple[str, Callable[[BorshReader], PriceEvent] | None]] = {
    bytes(discriminator): (name, read)
    for discriminator, name, read in (
        ((98, 208, 120, 60, 93, 32, 19, 180), "BuySellEvent", BuySellEvent.read),
        ((27, 69, 20, 116, 58, 250, 95, 220), "LongShortEvent", LongShortEvent.read),
        ((22, 244, 113, 245, 154, 168, 109, 139), "FullCloseEvent", FullCloseEvent.read),
        ((133, 94, 3, 222, 24, 68, 69, 155), "PartialCloseEvent", PartialCloseEvent.read),
        ((96, 122, 113, 138, 50, 227, 149, 57), "TokenCreated", None),
        ((234, 196, 183, 105, 40, 26, 206, 48), "ForceLiquidate", None),
        ((130, 232, 11, 37, 34, 185, 136, 128), "MilestoneDiscount", None),
    )
}
"""Discriminator -> name, and how to read it; None: it has no price and is not read."""


def name_of(data: bytes) -> str | None:
    """The name of an event, None for one that is not in the table."""
    name, _ = _EVENTS.get(data[:_DISCRIMINATOR_BYTES], (None, None))
    return name


def read_event(data: bytes) -> PriceEvent | None:
    """An event's bytes -> the event; None for one without a price, or not in the table.

    Raises BadMessage where the bytes do not fit the event's fields.
    """
    name, read = _EVENTS.get(data[:_DISCRIMINATOR_BYTES], (None, None))
    if read is None:
        return None
    try:
        return read(BorshReader(data, _DISCRIMINATOR_BYTES))
    except BadMessage as error:
        raise BadMessage(f"{name}: {error}", data.hex()) from None


def price_of(event: PriceEvent) -> Decimal:
    """``latest_price`` in whole SOL, every digit of it and no trailing zero."""
    digits = str(event.latest_price).zfill(PRICE_DECIMALS + 1)
    whole, fraction = digits[:-PRICE_DECIMALS], digits[-PRICE_DECIMALS:].rstrip("0")
    return Decimal(f"{whole}.{fraction}" if fraction else whole)
