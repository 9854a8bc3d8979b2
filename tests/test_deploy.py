"""The papers of the deployment: they parse, fit each other and the code, and the runbook knows
every alert.  What wants other programs (promtool, hadolint, systemd-analyze): ``live/``."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support import deployment
from support.deployment import COMPOSE, KUBERNETES, ROOT, Use

from scripts.pages_metrics import all_metrics
from trio_feed.settings import Settings, load

PRODUCTION = ROOT / "config/production.toml"
_ADDED = {"instance", "job"}
"""Labels that Prometheus adds."""


def documents(path: Path) -> list[Any]:
    yaml = pytest.importorskip("yaml", reason="scripts/test brings it")
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """Metrics as queries name them, with their labels."""
    ends = {"counter": ["_total"], "summary": ["_sum", "_count"], "gauge": [""]}
    ends["histogram"] = ["_bucket", "_sum", "_count"]
    metrics, found = all_metrics(), dict[str, set[str]]()
    for each in metrics.instruments:
        for end in ends[each.kind]:
            more = {"le"} if end == "_bucket" else set()
            found[each.name + end] = {*each.labels, *_ADDED, *more}
    page = metrics.exposition().decode()
    families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
    for name, kind in families.items():
        if name.startswith("process_"):
            found[name] = set(_ADDED)
        else:  # what the page has and what is said of it are the same
            whole = name if kind not in ("summary", "histogram") else f"{name}_sum"
            assert whole in found, name
    own = [name for name in families if not name.startswith("process_")]
    assert len(own) == len(metrics.instruments)
    return found | {"up": set(_ADDED)}


def recorded() -> dict[str, set[str]]:
    """What rules record: by name, the labels that they group by."""
    return {
        rule.name: {label for use in deployment.uses(rule.expr) for label in use.labels} - {"le"}
        for rule in deployment.rules()
        if rule.recorded
    }


def unknown(use: Use, known: dict[str, set[str]]) -> list[str]:
    if use.metric not in known:
        return [use.metric]
    return [f"{use.metric}{{{label}}}" for label in sorted(use.labels - known[use.metric])]


def test_uses_are_found() -> None:
    query = 'sum by (venue, le) (rate(trio_feed_a_total{x="1", y=~"2|3"}[5m])) / up{job="b"} > 0'
    assert list(deployment.uses(query)) == [
        Use("trio_feed_a_total", frozenset({"venue", "le", "x", "y"})),
        Use("up", frozenset({"venue", "le", "job"})),
    ]


def test_every_metric_and_label_of_an_alert_is_there(known: dict[str, set[str]]) -> None:
    pytest.importorskip("yaml", reason="scripts/test brings it")
    every = known | recorded()
    rules = deployment.rules()
    assert len(rules) > 25
    wrong = {r.name: [w for use in deployment.uses(r.expr) for w in unknown(use, every)]
             for r in rules}  # fmt: skip
    assert {name: found for name, found in wrong.items() if found} == {}
    assert all(list(deployment.uses(rule.expr)) for rule in rules)


def test_every_metric_and_label_of_the_dashboard_is_there(known: dict[str, set[str]]) -> None:
    pytest.importorskip("yaml", reason="scripts/test brings it")
    every, queries = known | recorded(), deployment.dashboard_queries()
    assert len(queries) > 40
    wrong = {q: [w for use in deployment.uses(q) for w in unknown(use, every)] for q in queries}
    assert {query: found for query, found in wrong.items() if found} == {}
    assert all(list(deployment.uses(query)) for query in queries)


def test_every_query_of_the_metrics_page_is_one(known: dict[str, set[str]]) -> None:
    text = (ROOT / "docs/metrics.md").read_text(encoding="utf-8").partition("## What people ask")[2]
    queries = re.findall(r"\| `(.+)` \|$", text, re.MULTILINE)
    assert len(queries) >= 6
    assert [w for q in queries for use in deployment.uses(q) for w in unknown(use, known)] == []


def test_every_alert_has_its_row_in_the_runbook_and_every_row_its_alert() -> None:
    pytest.importorskip("yaml", reason="scripts/test brings it")
    text = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (TrioFeed\w+) \|(.*)\|$", text, re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(
        rule.name for rule in deployment.rules() if not rule.recorded
    )
    assert all(len([cell for cell in row.split(" | ") if cell.strip()]) == 3 for _, row in rows)


def test_the_runbook_names_events_metrics_and_keys_that_are_there(
    known: dict[str, set[str]],
) -> None:
    from scripts.pages_logs import texts
    from scripts.pages_settings import tables

    page = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
    areas = {name.partition(".")[0] for name in texts()}
    keys = {f"{t.path.strip('[]')}.{key.name}" for t in tables() for key in t.keys}
    families = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in known}
    for word in re.findall(r"`([\w.]+)(?: = [^`]*)?`", page):
        area, dot, _ = word.partition(".")
        if word.startswith(("trio_feed_", "process_")):
            assert re.sub(r"_(total|bucket)$", "", word) in families, word
        elif dot and (area in areas or area in Settings.__annotations__):
            assert word in texts() or word in keys or word == "journald.conf", word


# Settings


def test_the_production_settings_are_those_of_the_users_document() -> None:
    settings = load([PRODUCTION])
    assert (settings.kline.connection_timeout, settings.kline.max_subscriptions_per_client) == (
        120, 200,
    )  # fmt: skip
    assert (settings.kline.broadcast_buffer_size, settings.kline.history_data_limit) == (50000, 500)
    assert (settings.server.host, settings.server.port) == ("0.0.0.0", 8080)
    websocket = settings.websocket
    assert (websocket.ping_interval, websocket.ping_timeout) == (25000, 60000)
    assert (websocket.max_connections, websocket.compression) == (10000, True)
    assert settings.logging.format == "json"
    assert not settings.simulator.enabled
    assert settings.server.admin_host == "127.0.0.1", "metrics are not for strangers"


# Container


def admin_port() -> int:
    return load([PRODUCTION]).server.admin_port


def test_the_image_copies_what_is_there_runs_as_nobody_and_is_probed() -> None:
    build, final = deployment.dockerfile()
    for step in build:
        if step.verb == "COPY":
            for name in step.words.split()[:-1]:
                assert (ROOT / name).exists(), name
    verbs = {step.verb: step.words for step in final}
    assert verbs["USER"] == "10001"
    assert [step.verb for step in final].index("USER") > [s.verb for s in final].index("RUN")
    assert f":{admin_port()}/health" in verbs["HEALTHCHECK"]
    assert set(map(int, verbs["EXPOSE"].split())) == {load([PRODUCTION]).server.port, admin_port()}
    assert json.loads(verbs["ENTRYPOINT"]) == ["trio-feed"]
    assert "/etc/trio_feed/production.toml" in json.loads(verbs["CMD"])
    copied = [step.words.split() for step in final if step.verb == "COPY"]
    assert ["config/production.toml", "config/cluster.toml", "/etc/trio_feed/"] in copied


def test_the_context_of_the_image_is_what_it_copies() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = {line[1:] for line in lines if line.startswith("!")}
    build, final = deployment.dockerfile()
    sources = {
        name.partition("/")[0]
        for step in build + final
        if step.verb == "COPY" and "--from" not in step.words
        for name in step.words.split()[:-1]
    }
    assert let_in == sources
    assert "*" in lines


def test_compose_fits_the_image_and_the_folders() -> None:
    (compose,) = documents(COMPOSE)
    services = compose["services"]
    for service in services.values():
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), volume
            else:
                assert source in compose["volumes"], volume
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:"), "nothing is open to the world by itself"
    ours = services["trio_feed"]
    port, admin = load([PRODUCTION]).server.port, admin_port()
    assert ours["ports"] == [f"127.0.0.1:8080:{port}", f"127.0.0.1:9090:{admin}"]
    published = [port.rpartition(":")[0] for s in services.values() for port in s["ports"]]
    assert len(set(published)) == len(published)
    assert int(ours["ulimits"]["nofile"]) >= 10_000 + 192


@pytest.mark.parametrize(
    ("variables", "proxy", "simulated", "path"),
    [
        ({}, "", False, "data/production.db"),
        ({"TRIO_FEED_PROXY": "socks5://host.docker.internal:7890"}, "host.docker.internal:7890",
         False, "data/production.db"),
        ({"TRIO_FEED_SIMULATED": "true"}, "", True, "data/simulated-production.db"),
    ],
)  # fmt: skip
def test_what_compose_puts_into_the_environment_is_settings(
    variables: dict[str, str], proxy: str, simulated: bool, path: str
) -> None:
    (compose,) = documents(COMPOSE)

    def filled(match: re.Match[str]) -> str:
        value = variables.get(match[1], "")
        return {":-": value or match[3], ":+": match[3] if value else ""}[match[2]]

    environ = {
        key: re.sub(r"\$\{(\w+)(:[-+])([^}]*)\}", filled, str(value))
        for key, value in compose["services"]["trio_feed"]["environment"].items()
    }
    settings = load([PRODUCTION], environ=environ)
    connection = settings.exchanges["binance_usdm"].connection
    assert (connection.proxy.address, connection.proxy.enabled) == (proxy, bool(proxy))
    assert (settings.simulator.enabled, settings.store.path) == (simulated, path)
    assert settings.server.admin_host == "0.0.0.0"


def test_prometheus_and_grafana_find_each_other() -> None:
    (compose,) = documents(COMPOSE)
    (prometheus,) = documents(ROOT / "deploy/prometheus/prometheus.yml")
    (scrape,) = prometheus["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": [f"trio_feed:{admin_port()}"]}]
    assert scrape["job_name"] == "trio_feed"  # what alerts ask for
    mounted = [v.split(":")[1] for v in compose["services"]["prometheus"]["volumes"]]
    assert [f"/etc/prometheus/{name}" for name in prometheus["rule_files"]] == [mounted[1]]
    (source,) = documents(ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml")
    (prometheus_there,) = source["datasources"]
    assert prometheus_there["url"] == "http://prometheus:9090"
    board = json.loads(deployment.DASHBOARD.read_text(encoding="utf-8"))
    sources = {t["datasource"]["uid"] for p in board["panels"] for t in p.get("targets", ())}
    assert sources == {prometheus_there["uid"]}
    (provider,) = documents(ROOT / "deploy/grafana/provisioning/dashboards/trio_feed.yml")
    folder = provider["providers"][0]["options"]["path"]
    assert f"./deploy/grafana/dashboards:{folder}:ro" in compose["services"]["grafana"]["volumes"]


def test_alerts_go_to_somebody_who_can_be_filled_in() -> None:
    (compose,) = documents(COMPOSE)
    (prometheus,) = documents(ROOT / "deploy/prometheus/prometheus.yml")
    service = compose["services"]["alertmanager"]
    (there,) = prometheus["alerting"]["alertmanagers"]
    assert there["static_configs"] == [{"targets": ["alertmanager:9093"]}]
    assert service["ports"] == ["127.0.0.1:9093:9093"]
    file = service["command"][0].partition("=")[2]
    assert f"./deploy/prometheus/alertmanager.yml:{file}:ro" in service["volumes"]
    path = ROOT / "deploy/prometheus/alertmanager.yml"
    (config,) = documents(path)
    names = {each["name"] for each in config["receivers"]}
    routes = [config["route"], *config["route"]["routes"]]
    assert {each["receiver"] for each in routes} == names
    assert [rule.name for rule in deployment.rules() if rule.name == "TrioFeedDown"]
    # What is to be filled in is a receiver when the # is taken away.
    yaml = pytest.importorskip("yaml")
    text = re.sub(r"^    # ", "    ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (filled,) = yaml.safe_load(text)["receivers"]
    assert filled["webhook_configs"][0]["url"].startswith("https://")
    assert filled["email_configs"][0].keys() >= {"to", "from", "smarthost"}


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    board = json.loads(deployment.DASHBOARD.read_text(encoding="utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


# Service managers


def test_the_unit_is_notified_watched_and_hardened() -> None:
    unit = deployment.unit()
    service = {key: values[-1] for key, values in unit["Service"].items()}
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) > 0
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    program, *words = service["ExecStart"].split()
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert program.rpartition("/")[2] in scripts
    assert words == ["run", "--config", "/etc/trio_feed/production.toml"]
    settings = load([PRODUCTION])
    assert int(service["LimitNOFILE"]) >= settings.websocket.max_connections + 192
    assert int(service["TimeoutStopSec"]) > settings.service.shutdown_timeout_s + 6
    assert not Path(settings.store.path).is_absolute(), "it lies in the state directory"
    assert service["WorkingDirectory"] == f"%S/{service['StateDirectory']}"
    for key in ("NoNewPrivileges", "DynamicUser", "PrivateTmp", "ProtectHome"):
        assert service[key] == "yes"
    assert unit["Install"]["WantedBy"] == ["multi-user.target"]


def test_kubernetes_probes_ports_and_volumes_fit() -> None:
    objects = {each["kind"] + each["metadata"]["name"]: each for each in documents(KUBERNETES)}
    pod = objects["StatefulSettrio-feed"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    settings = load([PRODUCTION])
    assert ports == {"clients": settings.server.port, "admin": admin_port()}
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness")}
    assert all(probe == {"path": "/health", "port": "admin"} for probe in probes.values())
    assert container["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "admin"}
    for name in ("trio-feed", "trio-feed-admin"):
        service = objects[f"Service{name}"]["spec"]
        assert service["selector"].items() <= pod["metadata"]["labels"].items()
        assert {each["targetPort"] for each in service["ports"]} <= ports.keys()
    volumes = {each["name"] for each in pod["spec"]["volumes"]}
    volumes |= {
        each["metadata"]["name"]
        for each in objects["StatefulSettrio-feed"]["spec"]["volumeClaimTemplates"]
    }
    assert {each["name"] for each in container["volumeMounts"]} == volumes
    assert pod["spec"]["securityContext"]["runAsUser"] == 10001  # the image's user
    assert container["imagePullPolicy"] == "IfNotPresent", "an image that was loaded by hand"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_settings_of_the_config_map_are_settings(tmp_path: Path) -> None:
    (config,) = [each for each in documents(KUBERNETES) if each["kind"] == "ConfigMap"]
    (tmp_path / "own.toml").write_text(config["data"]["own.toml"])
    settings = load([PRODUCTION, tmp_path / "own.toml"])
    assert settings.server.admin_host == "0.0.0.0", "where probes and Prometheus ask"


# Papers for people who help


def test_hooks_call_what_the_checks_call() -> None:
    (config,) = documents(ROOT / ".pre-commit-config.yaml")
    (repo,) = config["repos"]
    assert repo["repo"] == "local"
    checks = (ROOT / "scripts/test").read_text(encoding="utf-8")
    for hook in repo["hooks"]:
        tool, *words = hook["entry"].split()
        assert hook["language"] == "system"
        if tool.startswith(".venv-test/bin/"):
            assert tool.removeprefix(".venv-test/bin/") in checks
        else:
            assert (ROOT / tool).exists(), tool
        assert not any(word.startswith("/") for word in words)


def test_issue_forms_ask_for_what_is_needed() -> None:
    folder = ROOT / ".github/ISSUE_TEMPLATE"
    forms = [documents(path)[0] for path in sorted(folder.glob("*.yml")) if path.stem != "config"]
    assert len(forms) == 3
    for form in forms:
        assert form["name"]
        assert form["description"]
        ids = [field["id"] for field in form["body"]]
        assert len(set(ids)) == len(ids)
        assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "trio_feed.__version__"}


@pytest.mark.parametrize(
    "name",
    ["Dockerfile", "compose.yaml", "compose.cluster.yaml", ".dockerignore",
     ".pre-commit-config.yaml", "CONTRIBUTING.md",
     *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "deploy").rglob("*")) if p.is_file())],
)  # fmt: skip
def test_no_paper_has_a_path_of_a_machine_or_a_password(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    wrong = r"/(?:home|root|work|Users)/\w+|index-url|(?i:password)\s*[:=]\s*(?!\$\{|\?|\.\.\.)\S+"
    assert re.findall(wrong, text) == []
