"""Early close: when it is trusted, what the exchange's row says of it, and when it stops."""

from support.engine import at, minute
from support.make import MINUTE, T0

from trio_feed.core.early import EarlyClose
from trio_feed.core.effects import Report
from trio_feed.model import Source

LEAD, CLOSES, REVISED = "early_close_lead_ms", "early_closes", "early_closes_revised"


def judge(early: EarlyClose, n: int, *, wrong: bool, now_s: float = 0.0) -> list[Report]:
    early.closed(minute(n, source=Source.TRADES), at(now_s))
    close = "100.60" if wrong else "100.50"
    found = early.official(minute(n, close=close), at(now_s + 2))
    assert all(isinstance(each, Report) for each in found)
    return [each for each in found if isinstance(each, Report)]


def test_it_is_off_unless_asked_for() -> None:
    assert not EarlyClose(False).trusted(at(0))
    assert EarlyClose(True).trusted(at(0))


def test_a_confirmed_close_counts_with_its_lead() -> None:
    early = EarlyClose(True)
    assert judge(early, 0, wrong=False) == [
        Report("", "", {}, LEAD, (), 2_000.0), Report("", "", {}, CLOSES),
    ]  # fmt: skip
    assert early.official(minute(0), at(9)) == []  # once only
    assert early.official(minute(5), at(9)) == []  # did not close early


def test_a_revised_one_counts_as_such() -> None:
    found = judge(EarlyClose(True), 0, wrong=True)
    assert [each.metric for each in found] == [LEAD, CLOSES, REVISED]
    assert [each.event for each in found] == ["", "", ""]


def test_the_exchange_may_answer_in_any_order_and_only_some_are_remembered() -> None:
    early = EarlyClose(True)
    for n in range(61):
        early.closed(minute(n, source=Source.TRADES), at(n))
    assert early.official(minute(0), at(80)) == []
    lead, _ = early.official(minute(60), at(80))
    assert isinstance(lead, Report)
    assert lead.amount == 20_000
    lead, _ = early.official(minute(1), at(80))
    assert isinstance(lead, Report)
    assert lead.amount == 79_000


def test_a_symbol_whose_early_closes_are_revised_waits_an_hour() -> None:
    early = EarlyClose(True)
    for n in range(2):
        judge(early, n, wrong=True, now_s=60 * n)
        assert early.trusted(at(60 * n + 2))
    found = judge(early, 2, wrong=True, now_s=120)
    assert found[-1] == Report(
        "close.waits", "warning", {"time": T0 + 2 * MINUTE, "wait_s": 3600.0}
    )
    assert not early.trusted(at(122 + 3599.9))
    assert early.trusted(at(122 + 3600))
    # It begins anew.
    for n in (100, 101):
        judge(early, n, wrong=True, now_s=6000)
    assert early.trusted(at(6002))


def test_few_among_many_are_no_reason_to_wait() -> None:
    early = EarlyClose(True)
    for n in range(300):
        judge(early, n, wrong=n % 30 == 0)  # two in every sixty
    assert early.trusted(at(2))
    judge(early, 300, wrong=True)
    assert early.trusted(at(2))
    judge(early, 301, wrong=True)
    assert not early.trusted(at(2))
