"""What is said of an error that one client provoked."""

import pytest

from trio_feed.push.barrier import first_of, last_line, place


def test_an_error_is_named_by_its_last_line_and_its_place() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        raise ExceptionGroup("all", [ValueError("one\ntwo\n"), KeyError("x")])
    error = first_of(caught.value)
    assert place(caught.value).startswith("test_barrier.py:")
    assert last_line(error) == "two"
    assert last_line("") == ""
    assert len(last_line("x" * 1_000)) == 200
    assert place(error) == ""  # it was never raised by itself
