"""The state machine of one candle subscription, as a table of what comes and what goes out."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.script import page, time_s, told, update

from trio_feed.client import wire
from trio_feed.client.candles import PAGE_ROWS, Candles
from trio_feed.client.messages import Stream
from trio_feed.client.numbers import OutOfStep
from trio_feed.model import Channel, Interval

STREAM = Stream("BTCUSDT", Channel.KLINE, Interval.M1)


def yes(recovered: bool | None = None) -> wire.Answer:
    return wire.Answer(recovered=recovered)


def feed(candles: Candles, *steps: Any) -> list[str]:
    """(word, epoch, offset, conflated) goes to ``update``, a page to ``history``, an answer to
    ``confirmed``; a fetch shows as ``?`` and the minute from which, its answer is ("page", page).
    """
    seen: list[str] = []
    asked = 0
    for step in steps:
        match step:
            case "lost":
                candles.lost()
                since = candles.opening().get("since")
                seen.append(f"since {since['epoch']}.{since['offset']}" if since else "anew")
                continue
            case wire.Page():
                out = candles.history(step)
            case wire.Answer():
                out = candles.confirmed(step)
            case ("page", wire.Page() as answer):
                out = candles.page(asked, answer)
            case _:
                out = candles.update(update(*step))
        seen += told(out.events)
        for asked in out.fetches:
            seen.append(f"?{(asked - time_s(0)) // 60 + 1}")
    return seen


H = page(range(5), 1, 10)
"""Minutes 0 to 4; the stream stands at 1.10."""
BEGUN = (H, yes())

TABLE: dict[str, tuple[list[Any], list[str]]] = {
    "history, then updates": (
        [*BEGUN, ("o5", 1, 11), ("f5", 1, 12), ("o6", 1, 13)],
        ["h0-4", "o5", "f5", "o6"],
    ),
    "the confirmation before the history": (
        [yes(), H, ("f5", 1, 11)],
        ["h0-4", "f5"],
    ),
    "updates before the confirmation wait": (
        [H, ("o5", 1, 11), ("f5", 1, 12), yes()],
        ["h0-4", "f5"],
    ),
    "how things stand comes with an old number": (
        [*BEGUN, ("o5", 1, 10), ("o5", 1, 11)],
        ["h0-4", "o5", "o5"],
    ),
    "what was conflated is not missing": (
        [*BEGUN, ("o5", 1, 14, 3), ("f5", 1, 15)],
        ["h0-4", "o5", "f5"],
    ),
    "provisional candles have the number of the message before them": (
        [*BEGUN, ("f5", 1, 11), ("p7", 1, 11), ("p7", 1, 11), ("f6", 1, 12), ("o7", 1, 13)],
        ["h0-4", "f5", "p7", "p7", "f6", "o7"],
    ),
    "a provisional candle that says how things stand": (
        [*BEGUN, ("p7", 1, 9), ("f5", 1, 11), "lost"],
        ["h0-4", "p7", "f5", "since 1.11"],
    ),
    "a revision of a candle long before the history": (
        [*BEGUN, ("r-90", 1, 11), ("f5", 1, 12)],
        ["h0-4", "r-90", "f5"],
    ),
    "a revision passes": (
        [*BEGUN, ("f5", 1, 11), ("r2", 1, 12), ("f6", 1, 13)],
        ["h0-4", "f5", "r2", "f6"],
    ),
    "nothing twice": (
        [*BEGUN, ("f5", 1, 11), ("f5", 1, 11), ("f5", 1, 12), ("f4", 1, 13), ("o5", 1, 14)],
        ["h0-4", "f5"],
    ),
    "resumed: what was missed comes from the server": (
        [*BEGUN, ("f5", 1, 11), "lost", yes(True), ("f6", 1, 14, 2), ("f7", 1, 15)],
        ["h0-4", "f5", "since 1.11", "resumed", "f6", "f7"],
    ),
    "resumed after a restart: a larger epoch begins anywhere": (
        [*BEGUN, "lost", yes(True), ("f5", 2, 3), ("f6", 2, 4)],
        ["h0-4", "since 1.10", "resumed", "f5", "f6"],
    ),
    "a server that says recovered and leaves out a candle": (
        [*BEGUN, "lost", yes(True), ("f7", 2, 1), ("page", page([5, 6, 7]))],
        ["h0-4", "since 1.10", "resumed", "?5", "f5", "f6", "f7"],
    ),
    "not recovered: the fresh history reaches back": (
        [*BEGUN, "lost", page(range(2, 9), 2, 7), yes(False), ("o9", 2, 7), ("f9", 2, 8)],
        ["h0-4", "since 1.10", "f5", "f6", "f7", "f8", "resumed", "o9", "f9"],
    ),
    "not recovered, the confirmation first": (
        [*BEGUN, "lost", yes(False), page(range(2, 7), 2, 7), ("f7", 2, 8)],
        ["h0-4", "since 1.10", "f5", "f6", "resumed", "f7"],
    ),
    "not recovered, and an update before the confirmation": (
        [*BEGUN, "lost", page(range(2, 7), 2, 7), ("f7", 2, 8), yes(False)],
        ["h0-4", "since 1.10", "f5", "f6", "resumed", "f7"],
    ),
    "not recovered: the fresh history does not reach back": (
        [
            *BEGUN, "lost", page(range(8, 10), 2, 7), yes(False), ("o10", 2, 8), ("f10", 2, 9),
            ("o11", 2, 10), ("page", page(range(5, 10))), ("f11", 2, 11),
        ],
        ["h0-4", "since 1.10", "?5", "f5", "f6", "f7", "f8", "f9", "resumed", "f10", "o11", "f11"],
    ),
    "the history has a hole too": (
        [*BEGUN, "lost", page([8, 9]), yes(False), ("page", page([6, 8])), ("f10", 1, 1)],
        ["h0-4", "since 1.10", "?5", "f6", "f8", "f9", "resumed!", "f10"],
    ),
    "a hole while all is well": (
        [*BEGUN, ("f7", 1, 11), ("f8", 1, 12), ("page", page([7, 8])), ("f9", 1, 13)],
        ["h0-4", "?5", "f7", "f8", "f9"],
    ),
    "lost while it was being filled: anew, from the last that went out": (
        [
            *BEGUN, "lost", page([8, 9], 2, 7), yes(False), ("f10", 2, 8),
            "lost", page([8, 9, 10, 11], 2, 20), yes(), ("page", page(range(5, 12))),
        ],
        ["h0-4", "since 1.10", "?5", "anew", "?5",
         "f5", "f6", "f7", "f8", "f9", "f10", "f11", "resumed"],
    ),
    "lost between history and confirmation": (
        [*BEGUN, "lost", page(range(3, 7), 2, 7), "lost", page(range(3, 8), 2, 9), yes(None)],
        ["h0-4", "since 1.10", "anew", "f5", "f6", "f7", "resumed"],
    ),
    "lost before anything was confirmed": (
        [H, "lost", page(range(6), 1, 12), yes(None), ("f6", 1, 13)],
        ["anew", "h0-5", "f6"],
    ),
    "lost before the answer": (
        [*BEGUN, "lost", "lost", yes(True), ("f5", 1, 11)],
        ["h0-4", "since 1.10", "since 1.10", "resumed", "f5"],
    ),
    "an empty history": (
        [page([], 1, 0), yes(), ("f3", 1, 1), ("f4", 1, 2)],
        ["h", "f3", "f4"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_table(name: str) -> None:
    steps, expected = TABLE[name]
    candles = Candles(STREAM, 5)
    candles.opening()
    assert feed(candles, *steps) == expected


@pytest.mark.parametrize(
    "number", [(1, 12), (1, 11, 1)], ids=["left out", "said to be conflated, and is not"]
)
def test_a_message_that_is_missing_inside_an_epoch(number: tuple[int, ...]) -> None:
    candles = Candles(STREAM, 5)
    candles.opening()
    feed(candles, *BEGUN)
    with pytest.raises(OutOfStep, match="offset"):
        feed(candles, ("o5", *number))


def test_pages_until_the_gap_is_closed() -> None:
    candles = Candles(STREAM, 5)
    candles.opening()
    feed(candles, *BEGUN, "lost")
    last = 5 + PAGE_ROWS + 3
    assert feed(candles, page([last]), yes(False)) == ["?5"]
    first = feed(candles, ("page", page(range(5, 5 + PAGE_ROWS))))
    assert first == [f"f{n}" for n in range(5, 5 + PAGE_ROWS)] + ["?" + str(5 + PAGE_ROWS)]


def test_what_it_asks_for() -> None:
    candles = Candles(STREAM, 0)
    assert candles.opening() == {"limit": 1}
    assert feed(candles, *BEGUN, ("f5", 1, 11)) == ["f5"]
    candles.lost()
    assert candles.opening()["since"] == {"epoch": 1, "offset": 11, "time": time_s(5)}


def test_it_asks_for_provisional_candles_every_time() -> None:
    candles = Candles(STREAM, 5, provisional=True)
    assert candles.opening()["provisional"] is True
    feed(candles, *BEGUN, "lost")
    assert candles.opening()["provisional"] is True
    assert "provisional" not in Candles(STREAM, 5).opening()


def test_what_is_held_back_is_bounded() -> None:
    candles = Candles(STREAM, 5)
    candles.opening()
    feed(candles, *BEGUN, ("f7", 1, 11))
    with pytest.raises(OutOfStep, match="too much"):
        feed(candles, *[(f"f{7 + n}", 1, 11 + n) for n in range(1, 20_000)])


class Server:
    """A naive one: the truth is every minute's close; it answers as the protocol says."""

    def __init__(self) -> None:
        self.closed, self.epoch, self.offset = 5, 1, 10
        self.holes: set[int] = set()

    def minutes(self, first: int, end: int) -> list[int]:
        return [minute for minute in range(first, end) if minute not in self.holes]


@given(st.lists(st.tuples(st.sampled_from(["close", "gone", "away", "restart", "hole"]),
                          st.integers(1, 4)), max_size=40),
       st.booleans())  # fmt: skip
def test_every_closed_candle_once_and_in_order(moves: list[tuple[str, int]], replays: bool) -> None:
    """Whatever happens, and whether the server replays or not."""
    server, candles, finals = Server(), Candles(STREAM, 5), ["h0-4"]
    candles.opening()
    seen = feed(candles, *BEGUN)

    def settle(steps: list[Any]) -> None:
        fresh = feed(candles, *steps)
        while fresh and fresh[-1].startswith("?"):
            seen.extend(fresh)
            first = int(fresh[-1][1:])
            fresh = feed_page(first)
        seen.extend(fresh)

    def feed_page(first: int) -> list[str]:
        out = candles.page(time_s(first - 1) + 1, page(server.minutes(first, server.closed)))
        fresh = told(out.events)
        return fresh + [f"?{(asked - time_s(0)) // 60 + 1}" for asked in out.fetches]

    def close(number: int, *, heard: bool) -> None:
        for _ in range(number):
            minute, server.closed = server.closed, server.closed + 1
            server.offset += 1
            finals.append(f"f{minute}")
            if heard:
                settle([(f"f{minute}", server.epoch, server.offset)])

    for move, number in moves:
        if move == "close":
            close(number, heard=True)
        elif move == "hole":
            server.holes.add(server.closed)
            server.closed += 1
        else:
            missed_from, at = server.closed, server.offset
            if move == "restart":
                server.epoch, server.offset = server.epoch + 1, 0
            close(number if move != "gone" else 0, heard=False)
            feed(candles, "lost")
            if replays and move != "restart":
                steps = [(f"f{missed_from + n}", server.epoch, at + n + 1)
                         for n in range(server.closed - missed_from)]  # fmt: skip
                settle([yes(True)])
                for step in steps:
                    settle([step])
            else:
                last = server.minutes(0, server.closed)[-3:]
                settle([page(last, server.epoch, server.offset), yes(False)])
    assert [word for word in seen if word[0] in "hf"] == finals
