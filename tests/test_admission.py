"""Host and Origin allow-lists."""

import pytest

from trio_feed.push.edge.admission import (
    admission,
    host_name,
    ip_group,
    normal_origin,
    origin_problem,
)


def refused(door: object, host: str | None, origin: str | None = None) -> str:
    headers = [(b"accept", b"*/*")]
    headers += [(b"host", host.encode("latin-1"))] if host is not None else []
    headers += [(b"origin", origin.encode("latin-1"))] if origin is not None else []
    refusal = door.refusal(headers)  # type: ignore[attr-defined]
    return "" if refusal is None else f"{refusal.status} {refusal.reason}"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.:8080", "127.0.0.1:1", "[::1]:9"])
@pytest.mark.parametrize("bound", ["127.0.0.1", "::1", "localhost"])
def test_on_the_loopback_only_its_names(bound: str, host: str) -> None:
    door = admission(bound, (), (), tls=False)
    assert refused(door, host) == ""
    assert refused(door, None) == ""  # HTTP/1.0; HTTP/1.1 without one h11 refuses
    for other in ("evil.example", "localhost.evil.example", "127.0.0.2", "::1", "a b", "", "\xff"):
        assert refused(door, other) == "421 host"
    assert refused(admission("127.0.0.9", (), (), tls=False), "127.0.0.9:80") == ""


def test_elsewhere_any_unless_set() -> None:
    assert refused(admission("0.0.0.0", (), (), tls=False), "feed.example.com") == ""
    door = admission("0.0.0.0", ("Feed.example.com", "[2001:db8::1]"), (), tls=False)
    assert refused(door, "feed.EXAMPLE.com:443") == ""
    assert refused(door, "[2001:DB8::1]:443") == ""
    assert refused(door, "example.com") == "421 host"
    assert refused(admission("127.0.0.1", ("*",), (), tls=False), "evil.example") == ""


def test_a_second_host_is_looked_at_too() -> None:
    door = admission("127.0.0.1", (), (), tls=False)
    refusal = door.refusal([(b"host", b"localhost"), (b"host", b"evil.example")])
    assert refusal is not None
    assert refusal.value == "evil.example"


@pytest.mark.parametrize(
    ("origin", "why"),
    [
        (None, ""),
        ("http://localhost:8080", ""),
        ("http://LOCALHOST:8080", ""),
        ("http://localhost", "403 origin"),
        ("http://localhost:80800", "403 origin"),
        ("https://localhost:8080", "403 origin"),
        ("http://127.0.0.1:8080", "403 origin"),
        ("http://evil.example:8080", "403 origin"),
        ("http://localhost:8080.evil.example", "403 origin"),
        ("http://localhost:8080@evil.example", "403 origin"),
        ("http://localhost:8080/", "403 origin"),
        ("null", "403 origin"),
        ("", "403 origin"),
        ("\xff", "403 origin"),
        ("http://\xff", "403 origin"),
    ],
)
def test_by_default_only_pages_of_our_own(origin: str | None, why: str) -> None:
    door = admission("127.0.0.1", (), (), tls=False)
    assert refused(door, "localhost:8080", origin) == why


def test_default_ports_and_tls() -> None:
    door = admission("0.0.0.0", (), (), tls=True)
    assert refused(door, "example.com", "https://example.com") == ""
    assert refused(door, "example.com:443", "https://example.com") == ""
    assert refused(door, "example.com", "https://example.com:443") == ""
    assert refused(door, "example.com", "http://example.com") == "403 origin"
    assert refused(door, "example.com:8443", "https://example.com") == "403 origin"


def test_allowed_origins_are_exact() -> None:
    door = admission("127.0.0.1", (), ("https://app.example.com", "null"), tls=False)
    assert refused(door, "localhost", "https://app.example.com") == ""
    assert refused(door, "localhost", "null") == ""
    assert refused(door, "localhost", "https://app.example.com:443") == "403 origin"
    assert refused(door, "localhost", "https://sub.app.example.com") == "403 origin"
    assert refused(door, "localhost", "http://app.example.com") == "403 origin"
    everybody = admission("127.0.0.1", (), ("*",), tls=False)
    assert refused(everybody, "localhost", "https://evil.example") == ""
    assert refused(everybody, "evil.example", "https://evil.example") == "421 host"


def test_names_and_origins_are_parsed_strictly() -> None:
    assert host_name("[::1") is None
    assert host_name("a:b") is None
    assert host_name("a/b") is None
    assert normal_origin("ftp://a") is None
    assert normal_origin("http://a:80:80") is None
    assert normal_origin("http://A.:80") == normal_origin("http://a")


@pytest.mark.parametrize("good", ["*", "null", "https://example.com", "http://[::1]:8080"])
def test_good_entries(good: str) -> None:
    assert origin_problem(good) == ""


@pytest.mark.parametrize(
    "bad",
    ["example.com", "https://example.com/", "https://*.example.com", "", "https://EXAMPLE.com/a"],
)
def test_bad_entries(bad: str) -> None:
    assert "not an origin" in origin_problem(bad)


def test_what_the_cap_per_ip_counts() -> None:
    assert ip_group("192.0.2.7") == "192.0.2.7"
    assert ip_group("2001:db8::1") == ip_group("2001:db8::ffff:1") == "2001:db8::/64"
    assert ip_group("::ffff:192.0.2.7") == "192.0.2.7"
    assert ip_group("fe80::1%eth0") == "fe80::/64"
    assert ip_group("memory") == "memory"


@pytest.mark.parametrize(
    ("site", "mode", "origin", "reason"),
    [
        ("cross-site", "no-cors", None, "403 cross_site"),  # an image or a script
        ("cross-site", "cors", None, "403 cross_site"),
        ("cross-site", "", None, "403 cross_site"),
        ("cross-site", "navigate", None, ""),
        ("cross-site", "cors", "https://app.example.com", ""),
        ("cross-site", "cors", "https://evil.example", "403 origin"),
        ("cross-site", "navigate", "https://evil.example", "403 origin"),  # a form
        ("same-site", "no-cors", None, ""),
        ("same-origin", "cors", None, ""),
        ("none", "navigate", None, ""),
    ],
)
def test_pages_of_others_order_nothing(
    site: str, mode: str, origin: str | None, reason: str
) -> None:
    headers = [(b"host", b"localhost"), (b"sec-fetch-site", site.encode())]
    headers += [(b"sec-fetch-mode", mode.encode())] if mode else []
    headers += [(b"origin", origin.encode())] if origin else []
    found = admission("127.0.0.1", (), ("https://app.example.com",), tls=False).refusal(headers)
    assert ("" if found is None else f"{found.status} {found.reason}") == reason
    assert origin or admission("127.0.0.1", (), ("*",), tls=False).refusal(headers) is None
