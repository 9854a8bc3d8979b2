"""ChainRepair against a small chain of ours: nothing is missed, or it is said."""

import random
from decimal import Decimal

import pytest
from attrs import define, evolve, field
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_feed.core.chain import ChainRepair
from trio_feed.core.chain_items import ChainLimits, Dated, Gap, Out, Proven, Retract, Take
from trio_feed.core.chain_known import ChainKnown
from trio_feed.core.chain_order import ChainOrder, Record
from trio_feed.core.chain_round import Known, Round, Walk
from trio_feed.core.effects import Report
from trio_feed.instants import NEVER, Exchange, Mono, Now, Wall
from trio_feed.model import Price
from trio_feed.transactions import (
    Answer,
    AskSignatures,
    AskSlot,
    AskTransaction,
    Question,
    SignaturePage,
    SignatureRow,
    Transaction,
)

SLOT_S = 0.4
T0_MS = 1_790_000_000_000
SLOT0 = 400_000_000


def at(seconds: float) -> Now:
    ms = T0_MS + seconds * 1000
    return Now(Mono(seconds), Wall(ms), Exchange(ms))


def price(key: str) -> Price:
    return Price("MINT", Decimal(1), key)


def tx(name: str, slot: int, prices: int = 1, **more: object) -> Transaction:
    found = Transaction(name, slot, tuple(price(f"{name}:{n}") for n in range(prices)))
    return evolve(found, **more)  # type: ignore[arg-type]


@define
class World:
    """A chain, its nodes, and a client that puts questions to them.  ``chance`` decides all.

    A block lands every SLOT_S; ``forks`` of them are skipped later, and their transactions land
    again or never.
    """

    chance: random.Random
    repair: ChainRepair
    endpoints: int = 1
    busy: float = 0.5
    forks: float = 0.0
    lost: float = 0.0
    shuffled: float = 0.0
    failing: float = 0.0
    nulls: float = 0.0
    holes: float = 0.0
    cut: float = 0.0
    now_s: float = 0.0
    connected: bool = True
    blocks: dict[int, list[Transaction]] = field(factory=dict)
    head: int = SLOT0
    unknown: set[tuple[int, str]] = field(factory=set)
    """(endpoint, signature) that the endpoint's list lacks."""
    cuts: dict[str, Transaction] = field(factory=dict)
    """As the WebSocket's node tells them."""
    later: list[tuple[float, int, object]] = field(factory=list)
    out: list[object] = field(factory=list)
    questions: list[Question] = field(factory=list)
    again: list[Transaction] = field(factory=list)
    made: int = 0

    @property
    def now(self) -> Now:
        return at(self.now_s)

    def take(self, out: Out) -> None:
        self.out += out

    def schedule(self, wait_s: float, what: object) -> None:
        self.made += 1
        self.later.append((self.now_s + wait_s, self.made, what))

    def run(self, seconds: float) -> None:
        end = self.now_s + seconds
        while self.now_s < end:
            self.now_s = round(self.now_s + 0.1, 3)
            slot = SLOT0 + int(self.now_s / SLOT_S)
            while self.head < slot:
                self.head += 1
                self.block()
            for item in sorted(i for i in self.later if i[0] <= self.now_s):
                self.later.remove(item)
                self.happen(item[2])
            if self.repair.due(self.now) <= self.now.mono:
                self.take(self.repair.advance(self.now))
                for question in self.repair.ask(self.now):
                    self.questions.append(question)
                    self.schedule(self.chance.uniform(0.0, 0.5), question)

    def block(self) -> None:
        landed, self.again = self.again, []
        found = [evolve(t, slot=self.head) for t in landed]
        for _ in range(self.chance.randint(1, 4) if self.chance.random() < self.busy else 0):
            self.made += 1
            failed = self.chance.random() < 0.1
            found.append(
                tx(f"s{self.made}", self.head, 0 if failed else self.chance.randint(0, 3),
                   failed=failed, time_ms=T0_MS + int(self.now_s) * 1000)
            )  # fmt: skip
        self.blocks[self.head] = found
        for t in found:
            self.notify(t)
            for endpoint in range(self.endpoints - 1):  # the last one knows everything
                if self.chance.random() < self.holes:
                    self.unknown.add((endpoint, t.signature))
        if self.chance.random() < self.forks:
            del self.blocks[self.head]
            self.again = [t for t in found if self.chance.random() < 0.7]

    def notify(self, t: Transaction) -> None:
        told = evolve(t, time_ms=0)
        if self.chance.random() < self.cut:
            told = evolve(told, prices=told.prices[:1], truncated=True)
        if self.connected and self.chance.random() >= self.lost:
            late = self.chance.random() < self.shuffled
            self.schedule(self.chance.uniform(0.2, 3.0) if late else 0.1, told)
            if late:
                self.schedule(0.3, told)

    def happen(self, what: object) -> None:
        if isinstance(what, Transaction):
            if self.connected:
                self.take(self.repair.live(what, self.now))
            return
        assert isinstance(what, AskSlot | AskSignatures | AskTransaction)
        if self.chance.random() < self.failing:
            wait_s = self.chance.choice((0.0, 0.0, 5.0))
            self.take(self.repair.failed(what, self.now, wait_s))
            return
        try:
            answer = self.answer(what)
        except ValueError:
            self.take(self.repair.failed(what, self.now))
        else:
            self.take(self.repair.answer(what, answer, self.now))

    def answer(self, question: Question) -> Answer:
        reached = self.head - 1 - self.chance.randint(0, 3)
        reached -= 1 if reached not in self.blocks else 0
        if isinstance(question, AskSlot):
            return reached
        if isinstance(question, AskTransaction):
            if self.chance.random() < self.nulls:
                return None
            found = [t for s, ts in self.blocks.items() if s <= reached for t in ts
                     if t.signature == question.signature]  # fmt: skip
            return found[0] if found else None
        if reached < question.min_slot:
            raise ValueError("minimum context slot has not been reached")
        rows = [
            SignatureRow(t.signature, slot, t.failed, t.time_ms)
            for slot, block in sorted(self.blocks.items(), reverse=True)
            if slot <= reached
            for t in reversed(block)
            if (question.endpoint, t.signature) not in self.unknown
        ]
        names = [row.signature for row in rows]
        if question.before is not None:
            if question.before not in names:
                return SignaturePage((), 0)
            rows = rows[names.index(question.before) + 1 :]
        if question.until in names:
            rows = [r for r in rows if names.index(r.signature) < names.index(question.until)]
        rows = rows[: question.limit]
        return SignaturePage(tuple(rows), len(rows))

    def disconnect(self, seconds: float) -> None:
        self.connected = False
        self.run(seconds)
        self.connected = True
        self.take(self.repair.reconnected(self.now))

    def heal(self) -> None:
        self.forks = self.lost = self.shuffled = self.failing = self.nulls = self.cut = 0.0
        self.run(60)
        self.busy = 0.0
        self.run(60)

    def taken(self) -> dict[str, int]:
        """Key -> position, what is taken by now; no key twice, and in order unless it says so."""
        taken: dict[str, int] = {}
        highest = -1
        for item in self.out:
            if isinstance(item, Take):
                assert item.price.key not in taken
                assert item.late or item.price.position > highest, item
                taken[item.price.key] = item.price.position
                highest = max(highest, item.price.position)
            elif isinstance(item, Retract):
                for key in item.keys:
                    del taken[key]
        return taken

    def truth(self) -> list[str]:
        return [p.key for _, ts in sorted(self.blocks.items()) for t in ts for p in t.prices]

    def of(self, kind: type) -> list[object]:
        return [item for item in self.out if isinstance(item, kind)]


def environment(seed: int = 1, **more: object) -> World:
    known = {"page": 5, "pages": 200, "settle_slots": 6, "give_up_s": 300.0}
    limits = {k: more.pop(k) for k in [*more] if hasattr(ChainLimits(), k)}
    endpoints = more.get("endpoints", 1)
    repair = ChainRepair(
        endpoints, ChainLimits(**{**known, **limits}), retracts=bool(more.pop("retracts", False))
    )  # type: ignore[arg-type]
    made = World(random.Random(seed), repair, **more)  # type: ignore[arg-type]
    made.take(repair.reconnected(made.now))
    busy, made.busy = made.busy, 0.0
    while made.repair.begun_slot is None:  # the first questions may fail
        made.run(3)
    made.busy = busy
    return made


def check(w: World, *, exact: bool) -> None:
    """Everything of the chain was taken, in its order; without ``exact`` inside a slot in any."""
    taken = w.taken()
    keys = sorted(taken, key=taken.__getitem__)
    truth = w.truth()
    if exact:
        assert keys == truth
    slot_of = {p.key: s for s, ts in w.blocks.items() for t in ts for p in t.prices}
    assert sorted(keys) == sorted(truth)
    assert [slot_of[k] for k in keys] == [slot_of[k] for k in truth]
    assert not [gap for gap in w.out if isinstance(gap, Gap) and gap.final]
    assert len(set(taken.values())) == len(taken)


@given(st.integers(0, 10**9), st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_reconnect_loses_nothing(seed: int, rough: bool) -> None:
    """Only connections break: everything comes in order, and nothing is late."""
    w = environment(seed, failing=0.2 * rough, nulls=0.3 * rough, page=20, hold_s=900.0)
    for _ in range(3):
        w.run(w.chance.uniform(1, 20))
        w.disconnect(w.chance.uniform(0.5, 20))
    w.heal()
    check(w, exact=True)
    assert not [t for t in w.of(Take) if t.late]  # type: ignore[attr-defined]
    assert w.repair.held == 0


@given(st.integers(0, 10**9), st.integers(1, 3), st.booleans())
@settings(max_examples=25, deadline=None)
def test_any_loss_and_disorder(seed: int, endpoints: int, shuffled: bool) -> None:
    w = environment(
        seed, endpoints=endpoints, lost=0.2, shuffled=0.2 * shuffled, failing=0.2, nulls=0.2,
        holes=0.2, cut=0.1, hold_s=5.0,
    )  # fmt: skip
    for _ in range(2):
        w.run(w.chance.uniform(1, 30))
        w.disconnect(w.chance.uniform(0.5, 20))
    w.heal()
    # Two endpoints that know one each of a slot's transactions do not know their order.
    check(w, exact=not shuffled and endpoints == 1)


@given(st.integers(0, 10**9), st.integers(1, 2))
@settings(max_examples=25, deadline=None)
def test_forks(seed: int, endpoints: int) -> None:
    """``processed``: what vanished is retracted, what moved is taken again where it landed."""
    w = environment(
        seed, endpoints=endpoints, retracts=True, forks=0.2, lost=0.1, failing=0.1, nulls=0.1,
        hold_s=5.0,
    )  # fmt: skip
    w.run(w.chance.uniform(10, 30))
    w.disconnect(w.chance.uniform(0.5, 10))
    w.run(20)
    w.heal()
    check(w, exact=False)


def started(**more: object) -> ChainRepair:
    """Three settled transactions, s1 in slot 100 to s3 in slot 300, and a subscription."""
    limits = ChainLimits(**{"settle_slots": 10, **more})  # type: ignore[arg-type]
    repair = ChainRepair(limits=limits)
    repair.reconnected(at(0))
    rows = tuple(SignatureRow(f"s{n}", n * 100) for n in (3, 2, 1))
    listed(repair, 0.0, 400, *rows)
    return repair


def listed(repair: ChainRepair, seconds: float, slot: int, *rows: SignatureRow) -> Out:
    """Answer a round: the node is at ``slot`` and gives these rows, newest first."""
    (question,) = repair.ask(at(seconds))
    assert isinstance(question, AskSlot)
    repair.answer(question, slot, at(seconds))
    (question,) = repair.ask(at(seconds))
    assert isinstance(question, AskSignatures)
    assert question.min_slot == slot
    return repair.answer(question, SignaturePage(rows, len(rows)), at(seconds))


def told(out: Out) -> list[str]:
    return [item.price.key for item in out if isinstance(item, Take)]


def reported(out: Out) -> list[Report]:
    return [item for item in out if isinstance(item, Report)]


OLD = tuple(SignatureRow(f"s{n}", n * 100) for n in (3, 2))


def test_live_transactions_wait_for_nothing_while_nothing_is_missing() -> None:
    repair = started()
    out = repair.live(tx("a", 500, 2), at(1))
    assert told(out) == ["a:0", "a:1"]
    prices = [item.price for item in out if isinstance(item, Take)]
    assert prices[0].position < prices[1].position
    assert [p.time_ms for p in prices] == [0, 0]  # no clock of ours is asked
    assert repair.live(tx("a", 500, 2), at(1)) == ()
    assert told(repair.live(tx("b", 500), at(1))) == ["b:0"]


def test_what_was_lost_comes_before_what_waits() -> None:
    repair = started()
    assert told(repair.live(tx("a", 500), at(1))) == ["a:0"]
    repair.reconnected(at(5))
    assert repair.live(tx("d", 540), at(6)) == ()
    row = [SignatureRow(n, s) for n, s in (("d", 540), ("c", 520), ("b", 510), ("a", 500))]
    out = listed(repair, 6.0, 541, *row, *OLD)
    assert told(out) == []
    assert repair.held == 3
    b, c = repair.ask(at(6.5))
    assert [q.signature for q in (b, c) if isinstance(q, AskTransaction)] == ["b", "c"]
    assert told(repair.answer(c, tx("c", 520, time_ms=T0_MS + 3000), at(6.6))) == []
    out = repair.answer(b, tx("b", 510, time_ms=T0_MS + 2000), at(6.7))
    assert told(out) == ["b:0", "c:0", "d:0"]
    times = [item.price.time_ms - T0_MS for item in out if isinstance(item, Take)]
    assert times == [2000, 3000, -T0_MS]
    assert [item for item in out if isinstance(item, Proven)] == [
        Proven(531, reached=541, settled=("a", 500))
    ]


def test_failed_ones_are_not_fetched() -> None:
    repair = started()
    repair.reconnected(at(5))
    listed(repair, 20.0, 541, SignatureRow("b", 510, failed=True), *OLD)
    assert repair.ask(at(20)) == []
    assert repair.held == 0
    assert repair.settled == ("b", 510)  # nothing is missing before it


def test_the_list_must_reach_what_the_subscription_told() -> None:
    repair = started()
    repair.reconnected(at(5))
    repair.live(tx("d", 540), at(5))
    assert told(listed(repair, 5.0, 520, *OLD)) == []
    assert repair.due(at(5)) <= Mono(6)
    assert told(listed(repair, 6.0, 540, SignatureRow("d", 540), *OLD)) == ["d:0"]


def test_a_list_that_does_not_meet_what_is_known_is_no_evidence() -> None:
    """An endpoint that does not know a signature answers with nothing, not with an error."""
    repair = started()
    repair.reconnected(at(5))
    repair.live(tx("d", 540), at(5))
    assert told(listed(repair, 5.0, 545)) == []
    (again,) = repair.ask(at(6))
    assert isinstance(again, AskSignatures)
    assert again.before is None
    page = SignaturePage((SignatureRow("d", 540), *OLD), 3)
    assert told(repair.answer(again, page, at(6))) == ["d:0"]


def test_what_waits_too_long_goes_on_and_the_rest_is_late() -> None:
    repair = started(hold_s=20.0)
    repair.reconnected(at(5))
    repair.live(tx("d", 540), at(6))
    assert repair.due(at(6)) <= Mono(25)
    questions = repair.ask(at(6))
    out = repair.advance(at(25))
    assert [i for i in out if isinstance(i, Gap)] == [
        Gap(0, 540, "not fetched in time", final=False)
    ]
    assert told(out) == ["d:0"]
    assert told(repair.live(tx("e", 550), at(26))) == ["e:0"]
    repair.failed(questions[0], at(26))
    rows = [SignatureRow("e", 550), SignatureRow("d", 540), SignatureRow("c", 530)]
    listed(repair, 40.0, 560, *rows, *OLD)
    (c,) = repair.ask(at(41))
    (late,) = [i for i in repair.answer(c, tx("c", 530), at(41)) if isinstance(i, Take)]
    assert (late.price.key, late.late) == ("c:0", True)


def test_so_many_may_wait() -> None:
    repair = started(held=3)
    repair.reconnected(at(5))
    outs = [repair.live(tx(f"t{n}", 500 + n), at(6)) for n in range(5)]
    assert [told(out) for out in outs] == [[], [], [], ["t0:0", "t1:0", "t2:0", "t3:0"], ["t4:0"]]
    assert reported(outs[3]) == [Report("chain.released", "warning", {"held": 4, "missing": 0})]


def test_what_no_endpoint_has_is_said() -> None:
    repair = started(give_up_s=60.0)
    repair.reconnected(at(5))
    listed(repair, 20.0, 541, SignatureRow("b", 510), *OLD)
    seconds, out = 20.0, ()
    for _ in range(30):
        for question in repair.ask(at(seconds)):
            if isinstance(question, AskTransaction):
                out += repair.answer(question, None, at(seconds))
            else:
                repair.failed(question, at(seconds))
        seconds += 5
    assert [i for i in out if isinstance(i, Gap)] == [
        Gap(510, 510, "not fetched in time", final=False),
        Gap(510, 510, "b: no endpoint has it", final=True),
    ]
    assert repair.held == 0


def test_cut_logs_are_looked_up_and_marked_where_that_does_not_help() -> None:
    repair = started()
    cut = evolve(tx("a", 500), truncated=True)
    assert told(repair.live(cut, at(1))) == ["a:0"]
    (question,) = [q for q in repair.ask(at(1)) if isinstance(q, AskTransaction)]
    out = repair.answer(question, tx("a", 500, 2), at(1))
    assert told(out) == ["a:1"]
    repair.live(evolve(tx("b", 501), truncated=True), at(2))
    (question,) = [q for q in repair.ask(at(2)) if isinstance(q, AskTransaction)]
    out = repair.answer(question, evolve(tx("b", 501), truncated=True), at(2))
    assert [i for i in out if isinstance(i, Gap)] == [
        Gap(501, 501, "logs cut by every node", final=True)
    ]


def test_a_quiet_program_is_proven_quiet() -> None:
    repair = started()
    out = listed(repair, 10.0, 425, *OLD)
    assert out == (Dated(OLD), Proven(415, reached=425, settled=("s3", 300)))
    assert repair.due(at(10)) == Mono(20)


def test_it_goes_on_where_an_earlier_run_had_stopped() -> None:
    repair = ChainRepair(last=("s3", 300))
    repair.reconnected(at(0))
    repair.live(tx("d", 540), at(0))
    row = [SignatureRow("d", 540), SignatureRow("c", 530), SignatureRow("s3", 300)]
    listed(repair, 0.0, 541, *row, SignatureRow("s2", 200))
    (c,) = repair.ask(at(0))
    assert told(repair.answer(c, tx("c", 530), at(0))) == ["c:0", "d:0"]
    assert repair.settled == ("s3", 300)


@pytest.mark.parametrize(("slot", "believed"), [(600, True), (10**9, False)])
def test_an_absurd_slot_is_not_believed(slot: int, believed: bool) -> None:
    out = started().live(tx("a", slot), at(1))
    assert told(out) == (["a:0"] if believed else [])
    fields = {"signature": "a", "slot": slot}
    assert believed or out == (Report("chain.absurd_slot", "warning", fields),)


def test_odd_rows_and_an_endless_list_are_said() -> None:
    repair = started(page=3, pages=2)
    repair.reconnected(at(5))
    (ask,) = repair.ask(at(20))
    repair.answer(ask, 900, at(20))
    for first in (800, 700):
        (ask,) = repair.ask(at(20))
        rows = [SignatureRow(f"n{n}", n, failed=True) for n in (first, first - 1)]
        out = repair.answer(ask, SignaturePage(tuple(rows), 3), at(20))
    gaps = [i for i in out if isinstance(i, Gap)]
    assert [(g.first_slot, g.last_slot, g.final) for g in gaps] == [
        (400, 699, True), (400, 900, True)
    ]  # fmt: skip
    assert reported(out) == [Report("chain.odd_rows", "warning", {"rows": 2})]


def test_what_is_answered_late_or_twice_is_nothing() -> None:
    repair = started()
    (ask,) = repair.ask(at(10))
    repair.answer(ask, 425, at(10))
    assert repair.answer(ask, 425, at(10)) == ()
    assert repair.failed(ask, at(10)) == ()
    assert ChainRepair().due(at(0)) == NEVER


def test_it_forgets_within_bounds() -> None:
    repair = started(remembered=50)
    out: Out = ()
    for n in range(60):
        out += repair.live(tx(f"t{n}", 500 + n), at(1))
    assert len(told(out)) == 60
    gaps = [g for g in out if isinstance(g, Gap)]
    assert [(g.first_slot, g.last_slot, g.final) for g in gaps] == [(400, 505, True)]


def test_the_next_page_is_asked_of_a_node_that_knows_the_last_row() -> None:
    """Of one that does not the page would be empty, and look like the end of the list."""
    repair = started(page=2)
    repair.reconnected(at(5))
    (ask,) = repair.ask(at(20))
    repair.answer(ask, 520, at(20))
    (ask,) = repair.ask(at(20))
    rows = (SignatureRow("c", 530), SignatureRow("b", 525))
    repair.answer(ask, SignaturePage(rows, 2), at(20))
    (ask,) = repair.ask(at(20))
    assert isinstance(ask, AskSignatures)
    assert (ask.before, ask.min_slot) == ("b", 530)


def test_duplicates_are_known_of_so_many_signatures() -> None:
    known = ChainKnown(ChainLimits(remembered=2), None)
    for n in range(4):
        known.settle(f"s{n}", n)
    assert known.settled == {"s2": 2, "s3": 3}


def test_what_comes_first_in_a_slot_is_put_there_even_without_room() -> None:
    """Each new one lies before all that were given out; after so many there is no place left."""
    line, names = ChainOrder(), ["old"]
    line.arrange(7, names)
    for n in range(12):
        line.by_signature[names[0]].done = True
        names.insert(0, f"new{n}")
        line.arrange(7, names)
    assert len(line) == 13
    places = [record.place for record in line.records]
    assert places == sorted(places)
    first = line.records[0].signature
    line.by_signature[first].done = True
    line.arrange(7, ["last", first])  # the list names only some of them
    assert line.records[-1].signature == "old"


def test_what_goes_on_without_the_gap_needs_no_list_that_reaches_over_it() -> None:
    """A node may lag for ever behind what the subscription told; nothing waits for it any more."""
    repair = started(hold_s=20.0)
    repair.reconnected(at(5))
    repair.live(tx("d", 540), at(6))
    (question,) = repair.ask(at(6))
    assert told(repair.advance(at(25))) == ["d:0"]
    assert repair.answer(question, 520, at(26)) == ()
    (question,) = repair.ask(at(26))
    out = repair.answer(question, SignaturePage(OLD, 2), at(26))
    assert [item for item in out if isinstance(item, Proven)] == [
        Proven(510, reached=520, settled=("s3", 300))
    ]


def test_what_was_told_of_slots_before_the_beginning_need_not_be_listed() -> None:
    repair = started()
    cut = evolve(tx("a", 350), truncated=True)
    assert told(repair.live(cut, at(1))) == ["a:0"]
    (lookup,) = repair.ask(at(1))  # it stays, as long as it is being looked up
    assert isinstance(lookup, AskTransaction)
    out: Out = ()
    for seconds in (10.0, 20.0, 30.0):
        out += listed(repair, seconds, 400 + int(seconds), *OLD)
    assert reported(out) == []


def test_what_is_being_fetched_is_never_forgotten() -> None:
    known = ChainKnown(ChainLimits(remembered=10), None)
    records = [Record(f"s{n}", n, done=n > 0) for n in range(12)]
    for record in records:
        known.order.append(record)
    assert known.forget() is None
    records[0].done = True
    forgotten = known.forget()
    assert forgotten is not None
    names, gap = forgotten
    assert (names, gap.first_slot, gap.last_slot, known.floor) == (["s0", "s1"], 0, 1, 1)
    assert known.settled == {"s0": 0, "s1": 1}  # duplicates from now on
    assert len(known.order) == 10
    known.order.append(Record("s12", 12, done=True))
    assert known.forget() is None  # a tenth more may be kept


@pytest.mark.parametrize("retracts", [True, False])
def test_what_two_readings_do_not_name_is_said_and_retracted_where_it_may_vanish(
    retracts: bool,
) -> None:
    repair = ChainRepair(limits=ChainLimits(settle_slots=10), retracts=retracts)
    repair.reconnected(at(0))
    listed(repair, 0.0, 400, *OLD)
    assert told(repair.live(tx("a", 410), at(1))) == ["a:0"]
    assert reported(listed(repair, 10.0, 419, *OLD)) == []  # it may still be settling
    assert reported(listed(repair, 20.0, 420, *OLD)) == []
    out = listed(repair, 30.0, 430, *OLD)
    unlisted = Report("chain.unlisted", "warning", {"signature": "a"})
    retracted = Report("chain.retracted", "info", {"signature": "a"})
    assert reported(out) == [unlisted, *[retracted] * retracts]
    assert [i.keys for i in out if isinstance(i, Retract)] == [("a:0",)] * retracts


def test_a_node_that_does_not_answer_is_named() -> None:
    repair = ChainRepair(2, ChainLimits(settle_slots=10))
    repair.reconnected(at(0))
    seconds, out = 0.0, ()
    while not out:
        seconds += 30.0
        for question in repair.ask(at(seconds)):
            if question.endpoint == 1:
                out += repair.failed(question, at(seconds))
            elif isinstance(question, AskSlot):
                out += repair.answer(question, 400, at(seconds))
            else:
                out += repair.answer(question, SignaturePage(OLD, 2), at(seconds))
    assert reported(out) == [Report("chain.endpoint_silent", "warning", {"endpoint": 1})]
    assert seconds == 90.0


def test_a_transaction_is_never_in_two_slots_and_who_has_more_rows_counts() -> None:
    """An endpoint whose slots are 3 less made a retraction of every reading."""
    rows = [SignatureRow(f"s{n}", 400 + n, time_ms=0) for n in (5, 4, 3)]
    other = [evolve(row, slot=row.slot - 3) for row in rows[:2]] + [SignatureRow("own", 399)]
    most = [*rows, SignatureRow("s0", 398)]
    walks = Walk(0, 410, other, done=True), Walk(1, 410, most, done=True)
    found = Round(Mono(0.0), Known({}, 0), False, walks, ChainLimits())
    united = found.united()
    assert {slot: [row.signature for row in named] for slot, named in united.items()} == {
        398: ["s0"], 399: ["own"], 403: ["s3"], 404: ["s4"], 405: ["s5"],
    }  # fmt: skip
    assert found.contradicted == 2
    assert (found.united(), found.contradicted) == (united, 2)


@pytest.mark.parametrize(("last", "expected"), [(1, 3), (2, 2)])
def test_older_checkpoints_are_taken_where_there_is_one_alone(last: int, expected: int) -> None:
    known = ChainKnown(ChainLimits(), None)
    known.checkpoints = [(f"c{n}", 100 + n) for n in range(last)]
    walk = Walk(0, 200, older=[SignatureRow("o2", 92), SignatureRow("o1", 91)], done=True)
    known.older_checkpoints(Round(Mono(0.0), Known({}, 0), False, (walk,), ChainLimits()))
    assert len(known.checkpoints) == expected
    assert known.checkpoints[-1] == (f"c{last - 1}", 99 + last)


def test_what_was_in_the_list_before_the_beginning_is_no_news_later() -> None:
    """A node that is behind notifies of it once more."""
    repair = ChainRepair()
    repair.reconnected(at(0))
    listed(repair, 0.0, 400, *OLD)
    for row in OLD:
        assert told(repair.live(tx(row.signature, row.slot), at(1))) == []


def test_what_one_node_lacks_in_a_slot_keeps_its_place_between_the_others() -> None:
    def rows(*names: str) -> list[SignatureRow]:
        return [SignatureRow(name, 400) for name in names]  # newest first

    walks = (
        Walk(0, 410, rows("d", "b", "a"), done=True),
        Walk(1, 410, rows("c", "b"), done=True),
    )
    found = Round(Mono(0.0), Known({}, 0), False, walks, ChainLimits())
    assert [row.signature for row in found.united()[400]] == ["a", "b", "c", "d"]
