"""Spin Pet on Solana: a venue of prices without quantities, out of a program's events.

One ``logsSubscribe`` brings the events of every mint, so all streams share one connection and one
request.  There are no candles: they are built from the prices.  A symbol is a mint account in
base58; a notification has no time, so ``Price.time_ms`` is 0.

What the subscription lost is asked for by RPC: :meth:`SpinPet.question` and
:meth:`SpinPet.parse_answer` are the wire side of :class:`trio_feed.core.chain.ChainRepair`.

A transaction may hold several events.  Each that can be read gives its :class:`Price`, in order;
one that cannot be read hides none of the others and is counted as ``Ignored("bad <event>")``.
Where a transaction has bad events and no price at all, nothing is lost by raising BadMessage, and
its bytes get into the log.
"""

from collections.abc import Sequence

from attrs import Attribute, evolve, field, frozen

from ...core.streams import BookRule, Kind, Stream, TradeIds
from ...errors import BadMessage
from ...model import BookUpdate, Instrument, Interval, Kline, Price, Trade
from ...rest_dialects import HttpDialect, RestDialect
from ...transactions import (
    Answer,
    AskBlockTime,
    AskSignatures,
    AskSlot,
    AskTransaction,
    Question,
    Transaction,
)
from ..base import Ack, Event, Frame, Heartbeat, Ignored, Plan, RestQuestion
from ..instruments import Instruments
from ..rows import Rows
from . import solana, solana_rpc
from .events import name_of, price_of, read_event

NAME = "spinpet"
WEBSOCKET_URL = "wss://api.mainnet-beta.solana.com"
_PATH = "logs"
_REQUEST_ID = 1
_TRUNCATED = "truncated logs"


class _Facts:
    """What a venue says of itself, here the same for every program id."""

    NAME: str = NAME
    WEBSOCKET_URL: str = WEBSOCKET_URL
    REST_URL: str = ""
    KINDS: frozenset[Kind] = frozenset({Kind.PRICE})
    INTERVALS: frozenset[Interval] = frozenset()
    BOOK_RULE: BookRule | None = None
    BOOK_SNAPSHOT_LEVELS: int | None = None
    DIALECT: RestDialect = HttpDialect()
    HIGH_RATES: bool = False
    HEARTBEAT: Heartbeat | None = None
    LISTED: bool = False
    BURST_S: float = 60.0
    DIALS: tuple[int, float] = (40, 10.0)
    FRAMES: tuple[int, float] = (10, 1.0)
    OPERATIONS: tuple[int, float] | None = None
    SHARES: str = "solana"
    TRADE_KIND: Kind = Kind.PRICE
    TRADE_IDS: TradeIds = "opaque"
    PAGE: int = 0
    BEGAN_MS: int = 0


def _check_program(_: object, attribute: "Attribute[str]", value: str) -> None:
    if not solana.is_pubkey(value):
        raise ValueError(f"{attribute.name}: {value!r} is not a public key (32 bytes in base58)")


def _check_commitment(_: object, attribute: "Attribute[str]", value: str) -> None:
    if value not in solana.COMMITMENTS:
        names = ", ".join(solana.COMMITMENTS)
        raise ValueError(f"{attribute.name}: {value!r} is not one of {names}")


@frozen
class SpinPet(_Facts):
    """The venue of one deployed program: a :class:`trio_feed.venues.base.Venue`.

    Raises ValueError for a program id or a commitment that is none.
    """

    program_id: str = field(validator=_check_program)
    commitment: str = field(default="confirmed", validator=_check_commitment)
    """``processed`` is the earliest and may still be dropped by the chain."""
    process_failed_transactions: bool = False
    """True: also take events of transactions that were rolled back."""
    chain: bool = False
    """True: messages become transactions, for the chain's repair."""

    def own_form(self, symbol: str) -> str:
        return symbol

    def stream(
        self, kind: Kind, instrument: Instrument, interval: Interval | None = None
    ) -> Stream:
        """Raises ValueError for any kind but prices."""
        if kind not in self.KINDS or interval is not None:
            raise ValueError(f"{NAME} has no {kind} streams")
        return Stream(_PATH, instrument.native, instrument.symbol, kind)

    def plan(self, base_url: str, streams: Sequence[Stream], limit: int) -> list[Plan]:
        """One connection and one request, whatever ``limit`` is: they bring every mint."""
        if not streams:
            return []
        text = solana.logs_subscribe(_REQUEST_ID, self.program_id, self.commitment)
        return [Plan(base_url, tuple(streams), (Frame(text, frozenset({str(_REQUEST_ID)})),))]

    def parse(self, raw: str | bytes, instruments: Instruments) -> Sequence[Event]:
        """One WebSocket message -> an Ack, or what a transaction said; where ``chain``, the whole
        transaction.  Raises BadMessage."""
        message = solana.parse_message(raw)
        if isinstance(message, Ack):
            return (message,)
        if self.chain:
            transaction = self._read(message, instruments)
            reasons = ("failed transaction",) if transaction.failed else transaction.ignored
            return (transaction, *map(Ignored, reasons))
        if message.failed and not self.process_failed_transactions:
            return (Ignored("failed transaction"),)
        try:
            events, problem = self._events(message, instruments)
            if problem is not None and not any(isinstance(event, Price) for event in events):
                raise problem
        except BadMessage as error:
            raise BadMessage(f"transaction {message.signature}: {error}", error.sample) from None
        return events or (Ignored("transaction without events"),)

    def read(self, raw: str | bytes, instruments: Instruments) -> Ack | Transaction:
        """One WebSocket message -> an Ack, or a whole transaction, for the chain's repair: failed
        ones and those without prices too, because the node lists them.

        Raises BadMessage where not even its signature can be read.
        """
        message = solana.parse_message(raw)
        return message if isinstance(message, Ack) else self._read(message, instruments)

    def question(self, question: Question) -> RestQuestion:
        """What the repair asks, as a JSON-RPC call.  Raises ValueError for a limit that is none."""
        match question:
            case AskSlot():
                name, body = "getSlot", solana_rpc.slot_body(self._settled)
            case AskSignatures(before=before, until=until, limit=limit, min_slot=min_slot):
                name = "getSignaturesForAddress"
                body = solana_rpc.signatures_body(
                    self.program_id, self._settled, limit, before, until, min_slot
                )
            case AskTransaction(signature=signature):
                name = "getTransaction"
                body = solana_rpc.transaction_body(signature, self._settled)
            case AskBlockTime(slot=slot):
                name, body = "getBlockTime", solana_rpc.block_time_body(slot)
        return RestQuestion(name, {}, body=body)

    def parse_answer(self, question: Question, body: bytes, instruments: Instruments) -> Answer:
        """The answer to :meth:`question`.  Raises RpcRefused where the node refuses, BadMessage."""
        match question:
            case AskSlot():
                return solana_rpc.parse_slot(body)
            case AskSignatures():
                return solana_rpc.parse_signatures(body)
            case AskBlockTime():
                return solana_rpc.parse_block_time(body)
            case AskTransaction(signature=signature):
                found = solana_rpc.parse_transaction(body)
                if found is None:
                    return None
                if found.signature != signature:
                    raise BadMessage("another transaction than the one asked for", found.signature)
                return self._read(found, instruments)

    @property
    def _settled(self) -> str:
        """Nothing by RPC is asked as ``processed``: only what is confirmed is evidence."""
        return "confirmed" if self.commitment == "processed" else self.commitment

    def _read(self, message: solana.TransactionLogs, instruments: Instruments) -> Transaction:
        slot, failed, time_ms = message.slot, message.failed, message.time_ms
        if failed and not self.process_failed_transactions:
            return Transaction(message.signature, slot, failed=True, time_ms=time_ms)
        if message.logs is None:
            accounts = message.accounts
            return Transaction(
                message.signature, slot, (), failed, True, time_ms, accounts=accounts
            )
        events: list[Event] = []
        try:
            events, _ = self._events(message, instruments)
        except BadMessage:
            events = [Ignored("bad transaction")]
        prices = [evolve(e, time_ms=time_ms) for e in events if isinstance(e, Price)]
        ignored = [event.kind for event in events if isinstance(event, Ignored)]
        cut = _TRUNCATED in ignored
        return Transaction(
            message.signature,
            slot,
            tuple(prices),
            failed,
            cut,
            time_ms,
            tuple(ignored),
            message.accounts if cut else None,
        )

    def _events(
        self, message: solana.TransactionLogs, instruments: Instruments
    ) -> tuple[list[Event], BadMessage | None]:
        """What the logs say, in order, and the first problem.  Raises BadMessage for logs whose
        lines do not nest."""
        events: list[Event] = []
        problem: BadMessage | None = None
        found, truncated = solana.walk(
            message.logs or (), self.program_id, keep_failed=message.failed
        )
        for entry in found:
            name: str | None = "data"
            try:
                data = entry.decode()
                name = name_of(data)
                events.append(_price(data, f"{message.signature}:{entry.index}", instruments))
            except BadMessage as error:
                problem = problem or error
                events.append(Ignored(f"bad {name}"))
        if truncated:
            events.append(Ignored(_TRUNCATED))
        return events, problem

    def instruments_questions(self) -> list[RestQuestion]:
        return []

    def parse_instruments(self, body: bytes) -> Rows[Instrument]:
        raise BadMessage(f"{NAME} lists no instruments", solana.sample(body))

    def klines_question(
        self, instrument: Instrument, interval: Interval, start_ms: int, bars: int, now_ms: float
    ) -> RestQuestion:
        """Raises ValueError: ``INTERVALS`` is empty."""
        raise ValueError(f"{NAME} has no candles of its own")

    def parse_klines(self, body: bytes, instrument: Instrument) -> Rows[Kline]:
        raise BadMessage(f"{NAME} has no candles of its own", solana.sample(body))

    def trades_question(self, instrument: Instrument, from_id: int) -> RestQuestion | None:
        return None

    def parse_trades(self, body: bytes, instrument: Instrument) -> Rows[Trade]:
        raise BadMessage(f"{NAME} has no trades", solana.sample(body))

    def latest_question(
        self, instrument: Instrument, interval: Interval | None
    ) -> RestQuestion | None:
        return None

    def book_question(self, instrument: Instrument) -> RestQuestion | None:
        return None

    def parse_book(self, body: bytes, instrument: Instrument) -> BookUpdate:
        raise BadMessage(f"{NAME} has no books", solana.sample(body))


def _price(data: bytes, key: str, instruments: Instruments) -> Event:
    """An event's bytes -> its price, or Ignored.  Raises BadMessage."""
    event = read_event(data)
    if event is None:
        return Ignored(name_of(data) or f"unknown {NAME} event")
    instrument = instruments.of_native(event.mint_account)
    if instrument is None:
        return Ignored("price of an unknown instrument")
    return Price(instrument.symbol, price_of(event), key)
