"""The dashboard's routes in the whole service under virtual time; its files, and their shipping."""

import json
import re
import tomllib
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

import pytest
from attrs import frozen
from support.stack import Stack, open_stack, settings_for_tests
from test_server import until_closed
from trio.testing import MockClock

from trio_feed import web

WEB = Path(web.__file__).parent
SCRIPTS = sorted(WEB.glob("*.js"))


@frozen
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


async def ask(
    stack: Stack, path: str, *headers: str, method: str = "GET", admin: bool = False
) -> Answer:
    """Answer to one request, on a connection of its own."""
    address = stack.ready.admin_address if admin else stack.ready.address
    host, _, port = address.rpartition(":")
    stream = await stack.network.dial(host, int(port))
    named = () if any(each.startswith("Host:") for each in headers) else (f"Host: {host}",)
    lines = [f"{method} {path} HTTP/1.1", *named, *headers, "Connection: close", "", ""]
    await stream.send_all("\r\n".join(lines).encode())
    head, _, body = (await until_closed(stream)).partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    found = {name.lower(): value for name, _, value in (line.partition(": ") for line in fields)}
    return Answer(int(first.split()[1]), found, body)


async def test_every_file_has_its_type_and_the_policy(autojump_clock: MockClock) -> None:
    types = {
        "/": "text/html; charset=utf-8",
        "/web/app.js": "text/javascript; charset=utf-8",
        "/web/style.css": "text/css; charset=utf-8",
        "/web/icon.svg": "image/svg+xml",
        "/web/page.json": "application/json",
        "/web/vendor/lightweight-charts.standalone.production.js": "text/javascript; charset=utf-8",
        "/web/vendor/lightweight-charts.LICENSE": "text/plain; charset=utf-8",
    }
    async with open_stack(settings_for_tests()) as stack:
        for path, media_type in types.items():
            answer = await ask(stack, path)
            assert (answer.status, answer.headers["content-type"]) == (200, media_type), path
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'self'; ")
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-cache"
        assert (await ask(stack, "/")).body == (WEB / "index.html").read_bytes()


async def test_a_head_has_no_body_and_a_known_file_is_not_sent_again(
    autojump_clock: MockClock,
) -> None:
    async with open_stack(settings_for_tests()) as stack:
        whole = await ask(stack, "/web/app.js")
        head = await ask(stack, "/web/app.js", method="HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.body))
        etag = whole.headers["etag"]
        for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            again = await ask(stack, "/web/app.js", f"If-None-Match: {known}")
            assert (again.status, again.body) == (304, b"")
            assert again.headers["etag"] == etag
            assert "content-security-policy" in again.headers
        other = await ask(stack, "/web/style.css", f"If-None-Match: {etag}")
        assert other.status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/web/",
        "/web/none.js",
        "/web/__init__.py",
        "/web/../push/app.py",
        "/web/..%2f..%2fpyproject.toml",
        "/web/%2e%2e/__init__.py",
        "/web//etc/passwd",
        "/web/vendor/../../settings/tables.py",
        "/index.html",
    ],
)
async def test_what_is_no_file_of_it_is_answered_in_json(
    path: str, autojump_clock: MockClock
) -> None:
    async with open_stack(settings_for_tests()) as stack:
        answer = await ask(stack, path)
        assert (answer.status, answer.headers["content-type"]) == (404, "application/json")
        assert json.loads(answer.body)["message"].endswith("no such page")


async def test_it_takes_no_other_method(autojump_clock: MockClock) -> None:
    async with open_stack(settings_for_tests()) as stack:
        assert (await ask(stack, "/", method="DELETE")).status == 405


async def test_the_rules_of_host_and_origin_are_its_own_too(autojump_clock: MockClock) -> None:
    async with open_stack(settings_for_tests("server.allowed_hosts=['push']")) as stack:
        assert (await ask(stack, "/")).status == 200
        assert (await ask(stack, "/", "Host: evil.example")).status == 421
        assert (await ask(stack, "/web/app.js", "Origin: https://evil.example")).status == 403
        foreign = "Sec-Fetch-Site: cross-site"
        assert (await ask(stack, "/web/app.js", foreign, "Sec-Fetch-Mode: no-cors")).status == 403
        assert (await ask(stack, "/", foreign, "Sec-Fetch-Mode: navigate")).status == 200


async def test_it_says_what_is_on_which_port(autojump_clock: MockClock) -> None:
    async def page(stack: Stack, *, admin: bool) -> dict[str, bool]:
        found: dict[str, bool] = json.loads((await ask(stack, "/web/page.json", admin=admin)).body)
        return found

    async with open_stack(settings_for_tests()) as stack:
        assert await page(stack, admin=False) == {"klines": True, "operators": True}
    split = ("server.admin_host=admin", "server.admin_port=81")
    async with open_stack(settings_for_tests(*split)) as stack:
        assert await page(stack, admin=False) == {"klines": True, "operators": False}
        assert await page(stack, admin=True) == {"klines": False, "operators": True}
        assert (await ask(stack, "/", admin=True)).status == 200
    async with open_stack(settings_for_tests("kline.enable_kline_service=false")) as stack:
        assert await page(stack, admin=False) == {"klines": False, "operators": True}


def test_the_page_is_within_its_policy() -> None:
    """No inline script or style, nothing from elsewhere, no text made into elements."""
    html = (WEB / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", html)
    for address in re.findall(r'(?:src|href)="([^"]*)"', html):
        assert address.startswith("/web/") or address == "https://www.tradingview.com/"
    for script in SCRIPTS:
        text = script.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    assert "attributionLogo: false" in (WEB / "candles.js").read_text()


def test_every_file_that_is_named_is_there() -> None:
    named = set(re.findall(r'"/web/([^"]*)"', (WEB / "index.html").read_text()))
    for script in SCRIPTS:
        named |= set(re.findall(r'from "\./([^"]*)"', script.read_text()))
    assert named <= web.load().keys()
    identifiers = set(re.findall(r'\sid="([^"]*)"', (WEB / "index.html").read_text()))
    for script in SCRIPTS:
        for name in re.findall(r'byId\("([^"]*)"\)', script.read_text()):
            assert name in identifiers, f"{script.name}: {name}"


def test_the_package_ships_every_file() -> None:
    project = tomllib.loads((WEB.parent.parent / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["trio_feed"]
    for name in web.load():
        assert any(fnmatch(f"web/{name}", pattern) for pattern in patterns), name
