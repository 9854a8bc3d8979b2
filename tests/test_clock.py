from trio_feed.core.clock import ExchangeClock

T = 1_700_000_000_000.0


def test_nothing_known_is_our_own_clock() -> None:
    assert ExchangeClock().now(T) == T


def test_the_fastest_message_decides() -> None:
    clock = ExchangeClock()
    for number, way_ms in enumerate((80, 30, 500, 31)):
        sent = T + number * 1000
        clock.note(sent, sent + way_ms + 5_000)
    assert clock.ahead_ms == 5_030
    assert clock.now(T + 5_030) == T


def test_a_clock_that_is_slow_is_behind() -> None:
    clock = ExchangeClock()
    clock.note(T, T - 4_950)
    assert clock.now(T - 4_950) == T


def test_a_clock_that_is_set_back_is_followed_at_once_and_forward_in_two_windows() -> None:
    clock = ExchangeClock()
    clock.note(T, T + 50)
    clock.note(T + 1_000, T + 1_050 - 5_000)
    assert clock.ahead_ms == -4_950
    for second in range(2, 130):
        clock.note(T + second * 1000, T + second * 1000 + 50)
    assert clock.ahead_ms == 50


def test_an_old_slow_message_does_not_make_the_clock_fast_for_ever() -> None:
    clock = ExchangeClock()
    clock.note(T, T + 10_000)
    clock.note(T + 10_500, T + 10_550)
    assert clock.ahead_ms == 50


def test_what_is_not_of_now_teaches_nothing() -> None:
    clock = ExchangeClock()
    clock.note(T - 86_400_000, T)
    clock.note(1, T)
    assert clock.ahead_ms == 0
