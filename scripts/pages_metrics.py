"""``docs/metrics.md``: every metric, from the registry that the service fills."""

from trio_feed.cluster import CLUSTER_METRICS
from trio_feed.metrics import Durations, Metrics, ProxySample

_PROXY = ProxySample("okx", 1, "http", "127.0.0.1:7890", up=True, failures=0, successes=1)


def all_metrics() -> Metrics:
    """With everything registered that the service registers while it starts."""
    metrics = Metrics()
    metrics.follow_lost_lines(lambda: 0.0)
    metrics.follow_proxies(lambda: [_PROXY])
    metrics.follow_loop(lambda: Durations((0.001,), (1, 0), 0.0005))
    metrics.follow(CLUSTER_METRICS, dict)
    return metrics


def page() -> str:
    """The text of ``docs/metrics.md``."""
    lines = [_HEAD, "", "| metric | type | labels | meaning |", "|---|---|---|---|"]
    for each in all_metrics().instruments:
        labels = ", ".join(f"`{label}`" for label in each.labels)
        lines.append(
            f"| `{shown_name(each.name, each.kind)}` | {each.kind} | {labels} | {each.text} |"
        )
    return "\n".join([*lines, "", _TAIL]) + "\n"


def shown_name(name: str, kind: str) -> str:
    """As a query has it; those of a histogram end in ``_bucket``, ``_sum`` and ``_count``."""
    return f"{name}_total" if kind == "counter" else name


_HEAD = """# Metrics

<!-- Made by scripts/pages of trio_feed/metrics; edit that, not this. -->

`GET /metrics` in the Prometheus text format, on the admin port if there is one. Histograms have
`_bucket`, `_sum` and `_count`, a summary `_sum` and `_count`. Alerts:
[deploy/prometheus/alerts.yml](../deploy/prometheus/alerts.yml) and [runbook.md](runbook.md);
dashboard: [deploy/grafana](operating.md#prometheus-and-grafana)."""
_TAIL = """Beside them the process's own, as prometheus_client reads them: `process_cpu_seconds_total`,
`process_resident_memory_bytes`, `process_virtual_memory_bytes`, `process_start_time_seconds`,
`process_open_fds`, `process_max_fds`.

## What people ask for

| question | query |
|---|---|
| error rate of a venue | `rate(trio_feed_messages_failed_total[5m]) / rate(trio_feed_messages_total[5m])` |
| average broadcast latency | `rate(trio_feed_broadcast_latency_seconds_sum[5m]) / rate(trio_feed_broadcast_latency_seconds_count[5m])` |
| messages that clients did not get | `rate(trio_feed_push_failed_messages_total[5m])` |
| 99 % of the messages written within | `histogram_quantile(0.99, sum by (le) (rate(trio_feed_push_latency_seconds_bucket{stage="written"}[5m])))` |
| streams that stand still | `sum by (venue) (trio_feed_stream_state{state="stale"})` |
| memory | `process_resident_memory_bytes` |"""
