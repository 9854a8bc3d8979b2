"""Numbers as exchanges write them."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_feed.errors import BadMessage
from trio_feed.model import parse_decimal, plain


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("85000.10", "85000.10"), ("0.00000001", "0.00000001"), ("-1.5", "-1.5"), ("007", "7"),
        ("1E-8", "0.00000001"), ("1e-8", "0.00000001"), ("1.50E+2", "150"), ("1.5e2", "150"),
        ("2E40", "2" + "0" * 40), ("-2.50E-40", "-0." + "0" * 39 + "250"), ("0E-8", "0.00000000"),
        ("9" * 30 + "." + "9" * 30, "9" * 30 + "." + "9" * 30),
    ],
)  # fmt: skip
def test_numbers(text: str, digits: str) -> None:
    value = parse_decimal(text)
    assert (plain(value), value) == (digits, Decimal(text))


@pytest.mark.parametrize(
    "text",
    [
        "", "NaN", "-NaN", "sNaN", "Infinity", "-inf", "1e41", "1E-41", "1e999999999", "1e", "e5",
        "1e+", "1.5.1", "1_000", " 1", "1 ", "+1", ".5", "5.", "0x1", "٣", "1e٣", "9" * 31,
        "0." + "9" * 31, "1\n", None, 1, 1.5, True, [], {},
    ],
)  # fmt: skip
def test_what_is_no_number(text: object) -> None:
    with pytest.raises(BadMessage, match="not a decimal"):
        parse_decimal(text)  # type: ignore[arg-type]


@given(st.decimals(-(10**8), 10**8, places=20))
def test_all_its_spellings_are_one_number(value: Decimal) -> None:
    for text in (plain(value), format(value, "E"), format(value, "e")):
        assert parse_decimal(text) == value
