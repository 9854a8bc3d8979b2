"""Does it deliver?  Dead, quiet, trickling and unproven streams of one symbol."""

from collections.abc import Sequence

import pytest
from attrs import evolve
from support.engine import BOOKS, CANDLES, TICKERS, TRADES
from support.make import MINUTE, T0, kline, trade

from trio_feed.core.liveness import Liveness
from trio_feed.core.monitored import (
    Action,
    Flows,
    Probe,
    Rotate,
    Settled,
    Stale,
    Told,
    newer,
)
from trio_feed.core.streams import Data, Kind, KlineUpdate, Stream
from trio_feed.instants import NEVER, Mono
from trio_feed.model import BookTop, Interval, Price, Ticker

HOURS = evolve(CANDLES, name="1h", interval=Interval.H1)
TOPS = Stream("public", "btcusdt@bookTicker", "BTCUSDT", Kind.TOP)
PRICES = Stream("", "logs", "mint", Kind.PRICE)


def running(n: int, volume: str = "1.0") -> Told:
    return kline(T0 + n * MINUTE, closed=False, volume=volume)


def closed(n: int, volume: str = "1.0") -> Told:
    return kline(T0 + n * MINUTE, volume=volume)


def said(stream: Stream, number: int = 0) -> Data:
    """The ``number``-th message of a stream."""
    match stream.kind:
        case Kind.KLINE:
            row = kline(T0, closed=False, volume=str(number + 1))
            assert stream.interval is not None
            return KlineUpdate("BTCUSDT", stream.interval, row)
        case Kind.AGG_TRADE:
            return trade(number, T0 + number)
        case Kind.TICKER:
            return Ticker("BTCUSDT", trade(1, T0).price, *[None] * 5)
        case Kind.TOP:
            return BookTop("BTCUSDT", None, None, None, None)
    return Price("mint", trade(1, T0).price, str(number))


def latest(number: int) -> Told:
    """What REST has, where the stream said ``number`` last."""
    return kline(T0, closed=False, volume=str(number + 1))


class Watch:
    """A liveness with streams that have all spoken once a second for 20 s, the last time at 20."""

    def __init__(self, *streams: Stream, learn: bool = True) -> None:
        self.core = Liveness(frozenset({Kind.KLINE, Kind.AGG_TRADE}), 3.0, 5.0, 60.0)
        for stream in streams:
            self.core.up(stream, Mono(0))
        if learn:
            for second in range(1, 21):
                for stream in streams:
                    self.core.heard(said(stream, second), Mono(second))
            self.core.wake(Mono(20), held=False)

    def hear(self, stream: Stream, number: int, at: float) -> Flows | None:
        return self.core.heard(said(stream, number), Mono(at))

    def wake(self, at: float, *, held: bool = False) -> list[Action]:
        return self.core.wake(Mono(at), held=held)

    def answered(self, stream: Stream, newest: Told | None, at: float) -> list[Action]:
        return self.core.answered(stream, newest, Mono(at))

    def states(self) -> list[str]:
        return list(self.core.states())

    @property
    def wakes(self) -> float:
        return float(self.core.wake_at)


@pytest.mark.parametrize(
    ("told", "latest", "expected"),
    [
        (running(0), running(0), False),
        (running(0), running(0, "1.1"), True),
        (running(0, "1.1"), running(0), False),  # an older page
        (running(0), closed(0, "1.1"), True),
        (closed(0), running(0), False),  # the exchange corrects, or marks rows by other rules
        (closed(0), running(0, "1.1"), False),
        (closed(0), running(1), True),
        (closed(0), running(1, "0"), False),  # nothing was traded yet
        (closed(0), running(2, "0"), True),  # but the close in between is missing
        (running(0), running(1, "0"), True),
        (closed(1), running(0), False),
        (trade(7, T0), trade(8, T0), True),
        (trade(7, T0), trade(7, T0), False),
        (trade(7, T0), trade(6, T0), False),
        (trade(7, T0), running(1), False),
        (running(0), trade(8, T0), False),
        (None, trade(6, T0), False),
        (None, running(0), False),
    ],
)
def test_what_is_newer(told: Told | None, latest: Told, expected: bool) -> None:
    interval = None if isinstance(latest, type(trade(1, 1))) else Interval.M1
    assert newer(told, latest, interval) is expected


# The beginning


def test_a_stream_is_new_until_it_speaks_and_stale_while_it_is_down() -> None:
    watch = Watch(CANDLES, learn=False)
    assert watch.states() == ["new"]
    assert watch.core.is_up(Kind.KLINE, Interval.M1)
    assert watch.hear(CANDLES, 1, 3) == Flows(CANDLES, 0.0)
    assert watch.states() == ["live"]
    assert watch.hear(CANDLES, 2, 4) is None
    watch.core.lost(CANDLES)
    assert watch.states() == ["stale"]
    assert not watch.core.is_up(Kind.KLINE, Interval.M1)
    assert watch.wake(1_000) == []
    watch.core.up(CANDLES, Mono(30))
    assert watch.states() == ["new"]
    assert watch.hear(CANDLES, 3, 34) == Flows(CANDLES, 30.0)  # nothing since 4
    watch.core.up(CANDLES, Mono(40))
    assert watch.hear(CANDLES, 4, 41) == Flows(CANDLES, 0.0)  # a rotation misses nothing


def test_the_gap_begins_with_the_last_word_however_often_it_is_lost() -> None:
    watch = Watch(CANDLES)
    for at in (25, 30, 35):
        watch.core.lost(CANDLES)
        watch.core.up(CANDLES, Mono(at))
    assert watch.hear(CANDLES, 99, 36) == Flows(CANDLES, 16.0)


def test_events_find_their_stream() -> None:
    watch = Watch(CANDLES, HOURS, TRADES, TICKERS, TOPS, PRICES, learn=False)
    for stream in (CANDLES, HOURS, TRADES, TICKERS, TOPS, PRICES):
        assert watch.hear(stream, 1, 1) == Flows(stream, 0.0)
    assert (
        watch.core.heard(KlineUpdate("BTCUSDT", Interval.D1, kline(T0)), Mono(1)) is None
    )  # of a stream that is none of ours
    watch.core.lost(BOOKS)  # is not known: nothing happens


def test_what_is_up() -> None:
    watch = Watch(CANDLES, TRADES)
    assert watch.core.is_up(Kind.AGG_TRADE)
    assert not watch.core.is_up(Kind.KLINE)
    assert not watch.core.is_up(Kind.KLINE, Interval.H1)


def test_what_operators_see() -> None:
    watch = Watch(CANDLES)
    assert watch.core.statistics(Mono(21.2504)) == {
        CANDLES.name: {"state": "live", "expected_gap_s": 1.0, "silent_s": 1.25}
    }


# Silence


def test_a_stream_that_speaks_is_not_doubted() -> None:
    watch = Watch(CANDLES)
    assert watch.wakes == 25
    assert watch.wake(24.999) == []
    watch.hear(CANDLES, 21, 24.999)
    assert watch.wake(25) == []
    assert watch.wakes == 29.999


def test_what_is_not_known_yet_may_be_silent_for_most_of_the_timeout() -> None:
    watch = Watch(CANDLES, learn=False)
    assert watch.wakes == 45
    watch.hear(CANDLES, 1, 2)
    assert watch.wake(46.9) == []
    assert watch.wakes == 47
    assert watch.wake(47) == [Probe(CANDLES)]


def test_a_silence_is_asked_about_and_the_market_is_quiet() -> None:
    watch = Watch(CANDLES)
    assert watch.wake(25) == [Probe(CANDLES)]
    assert watch.wakes == NEVER  # an answer is awaited
    assert not watch.core.is_quiet(CANDLES, Mono(25))
    assert watch.answered(CANDLES, latest(20), 26) == [Settled("quiet")]
    assert watch.core.quiet_at == 26
    assert watch.core.is_quiet(CANDLES, Mono(26))
    assert watch.wakes == 32  # after as long a silence again
    assert not watch.core.is_quiet(CANDLES, Mono(32))
    assert watch.wake(32) == [Probe(CANDLES)]
    assert not watch.core.is_quiet(TRADES, Mono(26))


def test_a_quiet_market_that_speaks_is_not_quiet_any_more() -> None:
    watch = Watch(CANDLES)
    watch.wake(25)
    watch.answered(CANDLES, latest(20), 26)
    watch.hear(CANDLES, 21, 27)
    assert not watch.core.is_quiet(CANDLES, Mono(27))


def test_a_stream_that_does_not_tell_what_the_exchange_has_is_dead() -> None:
    watch = Watch(CANDLES)
    watch.wake(25)
    assert watch.answered(CANDLES, latest(25), 25.5) == []
    assert watch.wakes == 26.5  # it may be on its way
    assert watch.wake(26.4) == []
    assert watch.wake(26.5) == [Settled("news"), Stale(CANDLES, 6.5), Rotate(CANDLES)]
    assert watch.states() == ["stale"]
    assert not watch.core.is_up(Kind.KLINE, Interval.M1)
    assert watch.hear(CANDLES, 26, 30) == Flows(CANDLES, 10.0)
    assert watch.states() == ["live"]


def test_it_is_rotated_again_later_and_later_while_that_does_not_help() -> None:
    watch = Watch(CANDLES)
    watch.wake(25)
    watch.answered(CANDLES, latest(25), 25)
    assert watch.wake(26)[-1] == Rotate(CANDLES)
    times, at = [], 26.0
    for _ in range(5):
        times.append(watch.wakes - at)
        at = watch.wakes
        assert watch.wake(at) == [Rotate(CANDLES)]
    assert times == [15, 30, 60, 60, 60]


def test_a_stream_that_lived_for_a_minute_has_been_helped() -> None:
    """Dead after 90 s of life: rotated at once, and again after 15 s."""
    watch = Watch(CANDLES)
    for start in (25.0, 121.0):
        assert watch.wake(start) == [Probe(CANDLES)]
        watch.answered(CANDLES, latest(1_000), start)
        assert watch.wake(start + 1)[-1] == Rotate(CANDLES)
        assert watch.wakes == start + 16
        for second in range(90):
            watch.hear(CANDLES, 30 + second, start + 2 + second)
        watch.wake(start + 91)
        assert watch.wakes == start + 96


@pytest.mark.parametrize("lived_s", [0, 100])
def test_a_stream_that_dies_again_soon_is_not_rotated_before_its_time(lived_s: int) -> None:
    """However long it lived before it died the first time."""
    watch = Watch(CANDLES)
    for second in range(lived_s):
        watch.hear(CANDLES, 21 + second, 21 + second)
    watch.wake(20 + lived_s)
    watch.wake(25 + lived_s)
    watch.answered(CANDLES, latest(1_000), 25 + lived_s)
    assert watch.wake(26 + lived_s)[-1] == Rotate(CANDLES)
    watch.hear(CANDLES, 200, 28 + lived_s)
    watch.wake(33 + lived_s)
    watch.answered(CANDLES, latest(1_000), 33 + lived_s)
    assert watch.wake(34 + lived_s) == [Settled("news"), Stale(CANDLES, 6)]
    assert watch.wakes == 41 + lived_s
    assert watch.wake(41 + lived_s) == [Rotate(CANDLES)]
    assert watch.wakes == 71 + lived_s  # twice as long


def test_what_comes_within_the_grace_settles_it() -> None:
    watch = Watch(CANDLES)
    watch.wake(25)
    watch.answered(CANDLES, latest(21), 25.5)
    watch.hear(CANDLES, 21, 25.6)
    assert watch.wake(26.5) == [Settled("told")]
    assert watch.states() == ["live"]
    assert watch.wakes == 31.5


def test_what_tells_less_than_the_exchange_has_is_dead_as_well() -> None:
    watch = Watch(CANDLES)
    watch.wake(25)
    watch.answered(CANDLES, latest(40), 25)
    watch.hear(CANDLES, 30, 25.5)
    assert watch.wake(26) == [Settled("news"), Stale(CANDLES, 0.5), Rotate(CANDLES)]


def test_where_the_exchange_cannot_be_asked_nothing_is_proven() -> None:
    watch = Watch(CANDLES)
    watch.wake(25)
    assert watch.core.not_answered(TRADES, Mono(26)) == []  # of another stream
    assert watch.core.not_answered(CANDLES, Mono(26)) == [Settled("failed")]
    assert watch.states() == ["live"]
    assert (watch.wakes, watch.core.quiet_at) == (32, None)
    assert not watch.core.is_quiet(CANDLES, Mono(26))
    watch.wake(32)
    assert watch.answered(CANDLES, None, 33) == [Settled("failed")]
    assert watch.answered(CANDLES, latest(99), 34) == []  # nobody asked any more


def test_an_answer_about_another_stream_settles_nothing() -> None:
    watch = Watch(CANDLES)
    watch.wake(25)
    assert watch.answered(TRADES, trade(99, T0), 26) == []
    assert watch.answered(CANDLES, latest(20), 26) == [Settled("quiet")]


def test_what_never_spoke_is_compared_with_the_first_answer() -> None:
    watch = Watch(CANDLES, learn=False)
    assert watch.wake(45) == [Probe(CANDLES)]
    assert watch.answered(CANDLES, latest(1), 45) == [Settled("quiet")]
    assert watch.wakes == 90
    assert watch.wake(90) == [Probe(CANDLES)]
    assert watch.answered(CANDLES, latest(2), 90) == []
    assert watch.wake(91) == [Settled("news"), Stale(CANDLES, 91), Rotate(CANDLES)]


def test_while_messages_wait_for_us_a_silence_is_our_own_doing() -> None:
    watch = Watch(CANDLES)
    assert watch.wake(25, held=True) == []
    assert watch.wakes == 26
    assert watch.wake(26) == [Probe(CANDLES)]


def test_one_question_at_a_time() -> None:
    watch = Watch(CANDLES, HOURS)
    assert watch.wake(25) == [Probe(CANDLES)]
    assert watch.wakes == NEVER
    assert watch.wake(26) == []
    assert watch.wakes == NEVER  # the other one waits for the answer
    watch.answered(CANDLES, latest(20), 26.5)
    assert watch.wake(27) == []  # quiet, both: they fell silent together
    assert watch.core.is_quiet(HOURS, Mono(27))


# Which stream is asked about


def test_the_shortest_candle_is_the_cheapest_to_ask_about() -> None:
    watch = Watch(TRADES, HOURS, CANDLES)
    assert watch.wake(25) == [Probe(CANDLES)]
    watch = Watch(TRADES, HOURS)
    assert watch.wake(25) == [Probe(HOURS)]
    watch = Watch(TRADES)
    assert watch.wake(25) == [Probe(TRADES)]


def test_what_fell_silent_together_is_dead_together() -> None:
    watch = Watch(CANDLES, TRADES, TICKERS)
    watch.wake(25)
    watch.answered(CANDLES, latest(99), 25)
    actions = watch.wake(26)
    assert actions[0] == Settled("news")
    assert actions[1:4] == [Stale(s, 6) for s in (CANDLES, TRADES, TICKERS)]
    assert actions[4:] == [Rotate(s) for s in (CANDLES, TRADES, TICKERS)]


def test_a_quiet_market_is_quiet_for_what_was_not_silent_for_longer() -> None:
    watch = Watch(CANDLES, TRADES)
    watch.hear(TRADES, 21, 22)
    watch.hear(CANDLES, 21, 20.5)
    assert watch.wake(25.5) == [Probe(CANDLES)]
    watch.answered(CANDLES, latest(21), 26)
    assert watch.core.is_quiet(CANDLES, Mono(26))
    assert watch.core.is_quiet(TRADES, Mono(26))


def test_a_reference_that_spoke_meanwhile_leaves_the_other_in_doubt_for_later() -> None:
    watch = Watch(CANDLES, TICKERS)
    watch.hear(CANDLES, 20, 20.5)
    assert watch.wake(25) == [Probe(CANDLES)]  # whose own silence is no doubt yet
    watch.hear(CANDLES, 21, 25.9)
    assert watch.answered(CANDLES, latest(21), 26) == [Settled("quiet")]
    assert watch.core.is_quiet(CANDLES, Mono(26))
    assert watch.wakes == 31  # the candles; the other once it has been silent as long again


def test_an_askable_stream_that_is_silent_for_longer_is_asked_about_itself() -> None:
    watch = Watch(CANDLES, TRADES)
    for second in range(21, 26):
        watch.hear(CANDLES, second, second)
    assert watch.wake(25) == [Probe(TRADES)]
    assert watch.answered(TRADES, trade(21, T0), 25) == []
    for second in range(26, 28):
        watch.hear(CANDLES, second, second)
    assert watch.wake(26) == [Settled("news"), Stale(TRADES, 6), Rotate(TRADES)]
    assert watch.states() == ["live", "stale"]
    assert not watch.core.is_up(Kind.AGG_TRADE)


def moving(watch: Watch, first: int, last: int) -> None:
    for second in range(first, last + 1):
        watch.hear(CANDLES, second, second)


def test_a_line_that_nobody_can_be_asked_about_is_dead_when_the_market_moves_without_it() -> None:
    watch = Watch(CANDLES, TICKERS)
    moving(watch, 21, 25)
    assert watch.wake(25) == []
    assert watch.wakes == 26  # does the market move?
    moving(watch, 26, 26)
    assert watch.wake(26) == []
    assert watch.wakes == 27  # it does: what is on its way may come
    assert watch.wake(27) == [Stale(TICKERS, 7), Rotate(TICKERS)]
    assert watch.states() == ["live", "stale"]


def test_a_line_is_quiet_where_the_market_does_not_move() -> None:
    watch = Watch(CANDLES, TICKERS)
    moving(watch, 21, 25)
    watch.wake(25)
    watch.hear(CANDLES, 25, 25.9)  # the same values again
    assert watch.wake(26) == []
    assert watch.core.is_quiet(TICKERS, Mono(26))
    assert not watch.core.is_quiet(CANDLES, Mono(26))
    assert watch.states() == ["live", "live"]


@pytest.mark.parametrize("speaks_at", [25.5, 26.5])
def test_a_line_that_speaks_meanwhile_is_alive(speaks_at: float) -> None:
    watch = Watch(CANDLES, TICKERS)
    moving(watch, 21, 25)
    watch.wake(25)
    heard = False
    for at in (26, 27):
        if not heard and speaks_at < at:
            heard = True
            watch.hear(TICKERS, 1, speaks_at)
        moving(watch, at, at)
        assert watch.wake(at) == []
    assert watch.states() == ["live", "live"]


def test_without_anything_to_ask_about_nothing_is_proven() -> None:
    watch = Watch(TICKERS)
    assert watch.wake(25) == []
    assert watch.wakes == 30
    assert watch.states() == ["live"]


def test_a_witness_that_told_it_after_all_leaves_the_other_in_doubt() -> None:
    """Candles and tickers silent together; the candles come back within the grace."""
    watch = Watch(CANDLES, TICKERS)
    assert watch.wake(25) == [Probe(CANDLES)]
    watch.answered(CANDLES, latest(21), 25)
    watch.hear(CANDLES, 21, 25.5)
    assert watch.wake(26)[0] == Settled("told")
    assert watch.wakes == 27  # and now the candles are the measure
    moving(watch, 26, 27)
    assert watch.wake(27) == []
    moving(watch, 28, 28)
    assert watch.wake(28) == [Stale(TICKERS, 8), Rotate(TICKERS)]


# What is not wanted any more


def test_a_stream_that_is_not_wanted_any_more_is_forgotten_with_its_question() -> None:
    watch = Watch(CANDLES, TRADES)
    assert watch.wake(25) == [Probe(CANDLES)]
    watch.core.keep([TRADES])
    assert watch.states() == ["live"]
    assert watch.answered(CANDLES, latest(99), 26) == []
    assert watch.hear(CANDLES, 30, 27) is None
    assert watch.wake(26.5) == [Probe(TRADES)]


def test_keeping_the_others_keeps_a_question() -> None:
    watch = Watch(CANDLES, TICKERS)
    watch.wake(25)
    watch.core.keep([CANDLES])
    assert watch.answered(CANDLES, latest(20), 26) == [Settled("quiet")]


def test_a_trickle_is_asked_about_at_once() -> None:
    watch = Watch(CANDLES, learn=False)
    watch.core.heard(said(CANDLES, 0), Mono(0))
    for n in range(1, 200):
        watch.hear(CANDLES, n, n * 0.2)
    watch.wake(39.8)
    actions: Sequence[Action] = ()
    at = 39.8
    for n in range(200, 215):
        at += 2.0
        watch.hear(CANDLES, n, at)
        if watch.wakes <= at and (actions := watch.wake(at)):
            break
    assert actions == [Probe(CANDLES)]
    watch.answered(CANDLES, latest(500), at)
    assert watch.wake(at + 5) == [Settled("news"), Stale(CANDLES, 5), Rotate(CANDLES)]


def test_what_is_forgotten_wakes_nobody_and_its_question_stands_in_nobodys_way() -> None:
    watch = Watch(CANDLES, TRADES)
    for second in range(21, 26):
        watch.hear(CANDLES, second, second)
    assert watch.wake(25) == [Probe(TRADES)]
    watch.core.keep([CANDLES])
    assert watch.wake(32) == [Probe(CANDLES)]


def test_nobody_is_woken_for_what_is_forgotten() -> None:
    watch = Watch(CANDLES)
    assert watch.core.wake_at < NEVER
    watch.core.keep([])
    assert watch.core.wake_at == NEVER
