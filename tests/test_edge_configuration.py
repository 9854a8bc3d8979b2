"""The settings of the access: what is right, and one line about what is wrong."""

import math
from pathlib import Path

import pytest
from attrs import asdict

from trio_feed.errors import SettingsError
from trio_feed.push.edge.configuration import (
    admin_limits,
    admin_rules,
    admission_rules,
    check_server,
    clients_per_ip,
    clients_within,
    request_limits,
    server_limits,
    with_http_rate,
    work_limits,
)
from trio_feed.push.edge.limits import ServerLimits
from trio_feed.push.edge.throttle import RequestLimits
from trio_feed.push.edge.work import WorkLimits
from trio_feed.push.fanout.waiting import WaitingBytes
from trio_feed.settings import load


def test_defaults() -> None:
    settings = load()
    check_server(settings.server)
    rules = admission_rules(settings)
    assert rules.deflate is False
    assert rules.admission.hosts == {"localhost", "127.0.0.1", "[::1]"}
    assert rules.admission.origins == frozenset()
    limits = server_limits(settings.websocket, 30, 3)
    assert (limits.max_connections, limits.max_message_bytes) == (10_000, 65_536)
    assert limits.receive_timeout_s == 25 + 60 + 30
    assert request_limits(settings.websocket).burst == 500


def test_what_is_set_arrives() -> None:
    settings = load(
        assignments=[
            "server.host=0.0.0.0",
            "server.admin_host=127.0.0.1",
            "server.allowed_origins=['https://app.example.com']",
            "websocket.compression=true",
            "websocket.handshake_timeout_s=3",
        ]
    )
    rules = admission_rules(settings)
    assert rules.deflate is True
    assert rules.admission.hosts is None
    assert rules.admission.origins == {"https://app.example.com"}
    assert "127.0.0.1" in (admin_rules(settings.server).admission.hosts or ())
    assert admin_rules(settings.server).admission.origins == frozenset()
    limits = server_limits(settings.websocket, 30, 3)
    assert limits.handshake_timeout_s == 3


def test_one_address_cannot_take_all_places_unless_it_is_this_machine() -> None:
    default = load(assignments=[]).websocket.max_connections_per_ip
    for host in ("0.0.0.0", "::", "192.0.2.1", "feed.example.com"):
        assert clients_per_ip(default, 10_000, host) == 1000
        assert clients_per_ip(default, 100, host) == 16
    for host in ("127.0.0.1", "::1", "localhost"):
        assert clients_per_ip(default, 10_000, host) == 0
    assert clients_per_ip(7, 10_000, "127.0.0.1") == clients_per_ip(7, 10_000, "0.0.0.0") == 7
    assert clients_per_ip(0, 10_000, "0.0.0.0") == 0


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("server.allowed_origins=['example.com']", "server.allowed_origins.0: 'example.com' is"),
        ("server.allowed_hosts=['a', 'b:80']", "server.allowed_hosts.1: 'b:80' is not a name"),
        ("server.tls_cert_file=cert.pem", "server.tls_key_file: missing"),
        ("server.tls_key_file=key.pem", "server.tls_cert_file: missing"),
        ("server.admin_port=9090", "server.admin_port: needs admin_host"),
    ],
)
def test_one_line_about_what_is_wrong(assignment: str, line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_server(load(assignments=[assignment]).server)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_certificate_files_that_are_none(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    settings = load(assignments=[f"server.tls_cert_file={cert}", f"server.tls_key_file={key}"])
    with pytest.raises(SettingsError, match=r"server\.tls_cert_file: .*cert\.pem: No such file"):
        check_server(settings.server)
    cert.write_text("nonsense")
    with pytest.raises(SettingsError, match=r"server\.tls_key_file: .*key\.pem: No such file"):
        check_server(settings.server)
    key.write_text("nonsense")
    with pytest.raises(SettingsError, match=r"server\.tls_cert_file: .* wanted: PEM") as caught:
        check_server(settings.server)
    assert "\n" not in str(caught.value)


def test_every_limit_comes_from_its_setting() -> None:
    websocket = load(
        assignments=[
            "websocket.max_connections=11",
            "websocket.max_message_bytes=2048",
            "websocket.requests_per_second=7",
            "websocket.request_burst=15",
            "websocket.flood_requests=16",
            "websocket.ping_interval=17000",
            "websocket.ping_timeout=18500",
            "websocket.send_timeout_s=19",
            "websocket.handshake_timeout_s=20",
        ]
    ).websocket
    assert server_limits(websocket, 0.5, 0.25) == ServerLimits(
        max_connections=11,
        max_message_bytes=2048,
        frames_per_s=14,
        frame_burst=62,
        receive_timeout_s=36.0,
        send_timeout_s=19.25,
        handshake_timeout_s=20,
        body_timeout_s=20,
    )
    assert request_limits(websocket) == RequestLimits(per_s=7, burst=15, flood=16)
    assert admin_limits(websocket) == ServerLimits(
        max_connections=64, send_timeout_s=19, handshake_timeout_s=20
    )


def test_the_limits_without_settings() -> None:
    """What a change here would change for everybody."""
    assert asdict(ServerLimits()) == {
        "max_connections": 10_000,
        "max_connections_per_ip": 0,
        "max_message_bytes": 65_536,
        "frames_per_s": 200.0,
        "frame_burst": 2000,
        "controls_per_s": 20.0,
        "control_burst": 200,
        "http_per_s": 200.0,
        "http_burst": 1000,
        "send_timeout_s": 10.0,
        "handshake_timeout_s": 10.0,
        "body_timeout_s": 10.0,
        "receive_timeout_s": 180.0,
        "max_head_bytes": 16_384,
        "max_body_bytes": 1_048_576,
        "startup_timeout_s": 10.0,
        "shutdown_grace_s": 1.0,
    }


@pytest.mark.parametrize(
    ("wanted", "files", "clients"),
    [(10_000, math.inf, 10_000), (10_000, 10_224, 10_000), (10_000, 1024, 800), (10_000, 256, 128),
     (50, 256, 50)],
)  # fmt: skip
def test_some_descriptors_are_not_for_clients(wanted: int, files: float, clients: int) -> None:
    assert clients_within(wanted, files) == clients


def test_what_clients_may_order_comes_from_its_settings() -> None:
    limits = load(
        assignments=[
            "limits.rows_per_second=11",
            "limits.row_burst=12",
            "limits.total_rows_per_second=13",
            "limits.total_row_burst=14",
            "limits.waiting_per_address=15",
            "limits.wait_s=16",
            "limits.http_requests_per_second=17",
        ]
    ).limits
    assert work_limits(limits) == WorkLimits(
        rows_per_s=11,
        row_burst=12,
        total_rows_per_s=13,
        total_row_burst=14,
        waiting_per_address=15,
        wait_s=16,
    )
    found = with_http_rate(ServerLimits(), limits.http_requests_per_second)
    assert (found.http_per_s, found.http_burst) == (17, 85)
    assert work_limits(load(assignments=[]).limits) == WorkLimits()
    assert WaitingBytes().most == load(assignments=[]).limits.waiting_bytes
