"""ChainPlacing: a price is told at once and taken at the time of its block."""

from decimal import Decimal

from attrs import evolve

from trio_feed.core.chain_items import (
    ChainLimits,
    Dated,
    Gap,
    Heard,
    Item,
    Proven,
    Retract,
    Take,
    Unsure,
)
from trio_feed.core.chain_placing import ChainPlacing
from trio_feed.instants import Exchange, Mono, Now, Wall
from trio_feed.model import Price
from trio_feed.transactions import AskBlockTime, SignatureRow, Transaction

T = 1_790_000_000_000
SLOT = 1_000


def at(seconds: float, wrong_s: float = 0.0) -> Now:
    ms = T + (seconds + wrong_s) * 1000
    return Now(Mono(seconds), Wall(ms), Exchange(ms))


def take(name: str, slot: int, time_s: int = 0, *, late: bool = False) -> Take:
    price = Price("MINT", Decimal(1), f"{name}:0", T + time_s * 1000 if time_s else 0)
    return Take(evolve(price, position=slot << 28), late, name)


def row(name: str, slot: int, time_s: int) -> SignatureRow:
    return SignatureRow(name, slot, time_ms=T + time_s * 1000)


def run(
    placing: ChainPlacing, seconds: float, *items: Item, before: int | None = None
) -> list[Item]:
    out = [item for each in items for item in placing.put(each, at(seconds))]
    return [*out, *placing.flush(at(seconds), before)]


def said(out: list[Item]) -> list[tuple[str, str, int]]:
    return [
        (type(i).__name__, i.signature, (i.price.time_ms - T) // 1000)
        for i in out
        if isinstance(i, Take | Heard)
    ]


def started(*, listed_only: bool = False, **limits: float) -> ChainPlacing:
    placing = ChainPlacing(ChainLimits(**limits), listed_only=listed_only)  # type: ignore[arg-type]
    assert run(placing, 0, Dated((row("old", SLOT, 100),))) == []
    return placing


def test_it_is_told_at_once_and_taken_when_its_time_is_named() -> None:
    placing = started()
    assert said(run(placing, 1, take("a", SLOT + 10))) == [("Heard", "a", 104)]
    assert placing.waits
    assert run(placing, 2) == []
    # Whatever our clocks say, and whenever it came.
    assert said(run(placing, 3, Dated((row("a", SLOT + 10, 103),)))) == [("Take", "a", 103)]
    assert not placing.waits


def test_nothing_is_said_before_anything_is_known_of_the_chains_time() -> None:
    placing = ChainPlacing(ChainLimits(hold_s=5.0))
    assert run(placing, 1, take("a", SLOT)) == []
    assert run(placing, 100) == []
    out = run(placing, 101, Dated((row("b", SLOT + 5, 102),)))
    assert said(out) == [("Heard", "a", 102)]
    assert said(run(placing, 102, Dated((row("a", SLOT, 99),)))) == [("Take", "a", 99)]


def test_what_was_fetched_has_its_time_and_waits_only_for_those_before_it() -> None:
    placing = started()
    assert said(run(placing, 1, take("b", SLOT + 20, 108))) == [("Take", "b", 108)]
    assert said(run(placing, 2, take("d", SLOT + 40, 116), before=SLOT + 30)) == [
        ("Heard", "d", 116)
    ]
    out = run(placing, 3, take("c", SLOT + 30, 112))
    assert said(out) == [("Take", "c", 112), ("Take", "d", 116)]
    assert not any(item.late for item in out if isinstance(item, Take))
    (late,) = run(placing, 4, take("a", SLOT + 10, 104, late=True))
    assert isinstance(late, Take)
    assert late.late


def test_after_hold_s_candles_are_marked_and_made_right_later() -> None:
    placing = started(hold_s=20.0)
    run(placing, 1, take("a", SLOT + 10), take("b", SLOT + 20))
    for second in range(2, 21):
        assert run(placing, second) == []
    assert placing.due() <= Mono(22.5)
    out = run(placing, 21)
    unsure = [item for item in out if isinstance(item, Unsure)]
    assert said(out) == [("Take", "a", 104), ("Take", "b", 108)]
    assert unsure[0].first_ms == T + 100_000  # nothing later is known
    assert unsure[-1].until_ms >= T + 113_000
    placing.put(Proven(SLOT + 15, reached=SLOT + 31), at(22))
    assert not [i for i in run(placing, 22, Proven(SLOT + 15)) if isinstance(i, Proven)]
    rows = Dated((row("a", SLOT + 10, 104), row("b", SLOT + 20, 107)))
    out = run(placing, 23, rows)
    assert [item for item in out if isinstance(item, Retract)] == [Retract(("b:0",))]
    assert said(out) == [("Take", "b", 107)]
    assert Proven(SLOT + 15, T + 104_000) in out


def test_a_process_that_stood_still_has_not_waited() -> None:
    placing = started(hold_s=20.0)
    run(placing, 1, take("a", SLOT + 10))
    assert run(placing, 61) == []
    for second in range(62, 80):
        assert run(placing, second) == []
    assert said(run(placing, 82)) == [("Take", "a", 104)]


def test_what_may_vanish_waits_for_the_list() -> None:
    placing = started(listed_only=True)
    run(placing, 1, take("a", SLOT + 10), take("gone", SLOT + 10))
    out = run(placing, 2, Dated((row("a", SLOT + 10, 104),)))
    assert said(out) == [("Take", "a", 104)]
    assert run(placing, 3, Retract(("gone:0",))) == [Retract(("gone:0",))]
    assert not placing.waits


def test_a_proof_waits_for_what_is_not_taken_and_holds_for_known_times_only() -> None:
    placing = started()
    run(placing, 1, take("a", SLOT + 10))
    settled = ("old", SLOT)
    assert run(placing, 2, Proven(SLOT + 12, reached=SLOT + 28, settled=settled)) == []
    out = run(placing, 3, Dated((row("a", SLOT + 10, 104), row("", SLOT + 14, 106))))
    assert out[-1] == Proven(SLOT + 12, T + 104_000, SLOT + 28, settled)


def test_the_time_of_a_quiet_program_is_asked_for() -> None:
    placing = started()
    run(placing, 50, Proven(SLOT + 100, reached=SLOT + 116))
    (question,) = placing.ask(at(50), 7)
    assert question == AskBlockTime(7, 0, SLOT + 116)
    assert placing.ask(at(51), 8) == []
    placing.answered(question, T + 146_000)
    out = run(placing, 60, Proven(SLOT + 120, reached=SLOT + 136))
    assert out == [Proven(SLOT + 120, T + 146_000, SLOT + 136)]


def test_the_time_of_a_price_that_no_list_tells_is_asked_for_at_each_node() -> None:
    placing = ChainPlacing(ChainLimits(), 2)
    run(placing, 1, take("a", SLOT + 10))
    assert placing.ask(at(2), 1) == []
    asked = [question for second in (6, 11, 16) for question in placing.ask(at(second), second)]
    assert [(q.endpoint, q.slot) for q in asked] == [
        (1, SLOT + 10), (0, SLOT + 10), (1, SLOT + 10)
    ]  # fmt: skip
    placing.answered(asked[0], None)
    assert run(placing, 17) == []
    placing.answered(asked[0], T + 104_000)
    assert said(run(placing, 17)) == [("Take", "a", 104)]


def test_so_many_wait_and_no_more() -> None:
    placing = ChainPlacing(ChainLimits(held=2))
    out = run(placing, 1, *(take(f"t{n}", SLOT + n) for n in range(3)))
    assert out == [Gap(SLOT, SLOT, "no node says what time it is", final=True)]
    assert len(placing) == 2
    placing = started(held=2)
    out = run(placing, 1, *(take(f"t{n}", SLOT + 10 + n) for n in range(3)))
    assert said(out) == [("Take", "t0", 104), ("Heard", "t1", 104), ("Heard", "t2", 104)]


def test_what_two_nodes_name_different_times_for_is_taken_unsure_and_said_once_a_minute() -> None:
    """One node whose times are 40 s early made hundreds of candles wrong and complete."""
    placing = ChainPlacing(ChainLimits(hold_s=5.0), 2)
    assert run(placing, 0, Dated((row("old", SLOT, 100),))) == []
    run(placing, 1, take("a", SLOT + 10))
    late = Dated((row("a", SLOT + 10, 63),), endpoint=1)
    out = run(placing, 2, Dated((row("a", SLOT + 10, 103),)), late)
    assert [type(item).__name__ for item in out] == ["Report"]
    assert run(placing, 5) == []
    out = [item for second in (7.5, 9.0) for item in run(placing, second)]
    (unsure,) = [item for item in out if isinstance(item, Unsure)]
    assert (unsure.first_ms, unsure.until_ms >= T + 103_000) == (T + 63_000, True)
    fetched = Transaction("b", SLOT + 20, (), time_ms=T + 67_000)
    placing.fetched(fetched, 1)
    # One that was fetched from that node waits as well.
    assert said(run(placing, 10, take("b", SLOT + 20, 67))) == [("Heard", "b", 67)]


def test_the_time_of_a_quiet_chain_is_asked_for_once_in_a_while() -> None:
    placing = started()
    run(placing, 1, Proven(SLOT + 500, reached=SLOT + 500))
    assert [q.slot for q in placing.ask(at(1), 1)] == [SLOT + 500]
    run(placing, 2, Proven(SLOT + 510, reached=SLOT + 510))
    assert placing.ask(at(5.9), 2) == []
    assert [q.slot for q in placing.ask(at(6), 3)] == [SLOT + 510]
