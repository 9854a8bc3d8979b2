"""The model of the engine: no client sees a gap or a duplicate, and each rule matters for that."""

import pytest

from scripts import engine_model as script
from trio_feed.testing.engine_model import ALL, Broken, Rule, run

FOUND_BY = {
    Rule.COMPARE: 23,
    Rule.GUARD: 0,
    Rule.BREAKS: 1,
    Rule.HEADS: 2,
    Rule.FENCE: 42,
    Rule.CHECKPOINT: 33,
    Rule.DISAGREE: 322,
    Rule.BACKFILL: 48,
    Rule.STEP_DOWN: 1213,
    Rule.NEWEST: 4221,
    Rule.AHEAD: 22,
    Rule.RING: 33,
}
"""A seed that fails without the rule."""


@pytest.mark.parametrize("first", [0, 200, 400])
def test_every_client_gets_every_candle_once_and_in_order(first: int) -> None:
    happened = sum((run(seed) for seed in range(first, first + 200)), start=run(first))
    assert happened["delivered"] > 60_000
    faults = ("takeovers", "fenced", "repeated", "backfilled", "waits", "resumed")
    assert not [fault for fault in faults if happened[fault] < 20]


@pytest.mark.parametrize("rule", Rule)
def test_each_rule_is_needed(rule: Rule) -> None:
    run(FOUND_BY[rule])
    with pytest.raises(Broken):
        run(FOUND_BY[rule], ALL - {rule})


def test_the_same_seed_is_the_same_run() -> None:
    assert run(7) == run(7) != run(8)


def test_the_script_names_the_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["5", "0"]) == 0
    assert script.main(["5", "0", "--break", "guard"]) == 1
    assert "seed 0: a client has 4 and gets 3: a duplicate" in capsys.readouterr().out
