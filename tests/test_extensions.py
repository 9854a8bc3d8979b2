"""Offers of permessage-deflate and the one answer to them (RFC 7692, 7)."""

import pytest

from trio_feed.push.edge.extensions import accept_deflate

YES = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
DEFLATE = "permessage-deflate"


@pytest.mark.parametrize(
    ("offers", "answer"),
    [
        (DEFLATE, YES),
        (f"{DEFLATE}; client_max_window_bits", YES),
        (f"{DEFLATE};client_max_window_bits=8", YES),
        (f'{DEFLATE} ; client_max_window_bits = "15"', YES),
        (f"{DEFLATE}; server_no_context_takeover; client_no_context_takeover", YES),
        (f"{DEFLATE}; server_max_window_bits=15", f"{YES}; server_max_window_bits=15"),
        (f"{DEFLATE}; server_max_window_bits=10, {DEFLATE}", YES),
        (f"x-webkit-deflate-frame, {DEFLATE}", YES),
        (f"bbf-usp-protocol; a=1; b, {DEFLATE}; client_max_window_bits", YES),
        ("", None),
        ("x-webkit-deflate-frame", None),
        ("Permessage-Deflate", None),
        (f"{DEFLATE}; server_max_window_bits=10", None),
        (f"{DEFLATE}; server_max_window_bits", None),
        (f"{DEFLATE}; client_max_window_bits=abc", None),
        (f"{DEFLATE}; client_max_window_bits=7", None),
        (f"{DEFLATE}; client_max_window_bits=16", None),
        (f"{DEFLATE}; client_max_window_bits=08", None),
        (f"{DEFLATE}; client_max_window_bits=", None),
        (f"{DEFLATE}; client_max_window_bits=1\u0665", None),
        (f"{DEFLATE}; client_max_window_bits; client_max_window_bits=10", None),
        (f"{DEFLATE}; client_no_context_takeover=1", None),
        (f"{DEFLATE}; unknown", None),
        (f"{DEFLATE}; =", None),
        (f"{DEFLATE};", None),
        (f"\xff, {DEFLATE}", None),
        (f"{DEFLATE} \xff", None),
        (f'{DEFLATE}; client_max_window_bits="10', None),
    ],
)
def test_offer_and_answer(offers: str, answer: str | None) -> None:
    assert accept_deflate(offers) == answer


def test_a_long_malformed_offer_is_cheap() -> None:
    assert accept_deflate("a; b" * 4000 + "\x00") is None
    assert accept_deflate("a" + "; b=" * 4000) is None
    assert accept_deflate(" \t" * 8000 + ";") is None
