from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from trio_feed.core import calendar
from trio_feed.model import Interval

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIFTY_YEARS_MS = st.integers(0, 50 * 366 * 86_400_000)
INTERVALS = st.sampled_from(list(Interval))


def naive_open(interval: Interval, moment: datetime) -> datetime:
    """The same question answered with datetime only."""
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    number, unit = int(interval.value[:-1]), interval.value[-1]
    if unit == "M":
        return midnight.replace(day=1)
    if unit == "w":
        return midnight - timedelta(days=midnight.weekday())
    if unit == "d":
        return midnight - timedelta(days=(midnight - EPOCH).days % number)
    seconds = number * {"s": 1, "m": 60, "h": 3600}[unit]
    inside = (moment - midnight).total_seconds()
    return midnight + timedelta(seconds=inside // seconds * seconds)


@given(INTERVALS, FIFTY_YEARS_MS)
def test_open_of_agrees_with_datetime(interval: Interval, time_ms: int) -> None:
    expected = naive_open(interval, EPOCH + timedelta(milliseconds=time_ms))
    assert calendar.open_of(interval, time_ms) == (expected - EPOCH) // timedelta(milliseconds=1)


@given(INTERVALS, FIFTY_YEARS_MS)
def test_a_candle_holds_its_time_and_neighbours_touch(interval: Interval, time_ms: int) -> None:
    opened = calendar.open_of(interval, time_ms)
    end = calendar.next_open(interval, opened)
    assert opened <= time_ms < end
    assert calendar.open_of(interval, end) == end
    assert calendar.previous_open(interval, end) == opened
    assert end - opened >= calendar.length_ms(interval)


@given(INTERVALS, FIFTY_YEARS_MS, st.integers(0, 40))
def test_back_count_and_opens_agree(interval: Interval, time_ms: int, n: int) -> None:
    end = calendar.open_of(interval, time_ms)
    first = calendar.back(interval, end, n)
    assert calendar.count(interval, first, end) == n
    listed = list(calendar.opens(interval, first, end))
    assert len(listed) == n
    assert all(calendar.open_of(interval, at) == at for at in listed)


def test_weeks_open_on_monday() -> None:
    sunday_night = datetime(2026, 11, 22, 23, 59, tzinfo=UTC)
    opened = calendar.open_of(Interval.W1, int(sunday_night.timestamp() * 1000))
    assert EPOCH + timedelta(milliseconds=opened) == datetime(2026, 11, 16, tzinfo=UTC)
