"""The papers of a cluster: they parse, and the nodes that they start are nodes."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from support import deployment
from support.deployment import CLUSTER_COMPOSE, CLUSTER_KUBERNETES, ROOT

from trio_feed.errors import SettingsError
from trio_feed.settings import Settings, load
from trio_feed.validate import check

CLUSTER = ROOT / "config/cluster.toml"
SECRETS = {"TRIO_FEED_ENGINE_PASSWORD": "one", "TRIO_FEED_DATABASE_PASSWORD": "two"}


def documents(path: Path) -> list[Any]:
    yaml = pytest.importorskip("yaml", reason="scripts/test brings it")
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def compose() -> Any:
    (found,) = documents(CLUSTER_COMPOSE)
    return found


def filled(text: str) -> str:
    """As compose does, with the secrets that it asks for."""

    def value(match: re.Match[str]) -> str:
        name, mark, default = match.groups()
        if mark == ":?":
            return SECRETS[name]
        return SECRETS.get(name, default)

    return re.sub(r"\$\{(\w+)(:[-?])([^}]*)\}", value, text)


def environ(service: Any) -> dict[str, str]:
    return {key: filled(str(value)) for key, value in service["environment"].items()}


def nodes(compose: Any) -> dict[str, Settings]:
    return {
        name: load([CLUSTER], environ=environ(service))
        for name, service in compose["services"].items()
        if service["image"] == "trio_feed"
    }


def test_the_settings_lack_only_the_name_of_the_node() -> None:
    with pytest.raises(SettingsError, match=r"node\.name"):
        check(load([CLUSTER]))
    check(load([CLUSTER], {"TRIO_FEED__NODE__NAME": "a"}))
    settings = load([CLUSTER], {"TRIO_FEED__NODE__ROLES": '["push"]'})
    assert settings.node.roles == ("push",)
    production = load([ROOT / "config/production.toml"])
    for table in ("exchanges", "kline", "websocket", "server", "logging"):
        assert getattr(settings, table) == getattr(production, table), table


def test_two_nodes_feed_and_two_serve_and_they_are_one_cluster(compose: Any) -> None:
    found = nodes(compose)
    assert {name: settings.node.roles for name, settings in found.items()} == {
        "ingest-1": ("ingest",), "ingest-2": ("ingest",), "push-1": ("push",), "push-2": ("push",),
    }  # fmt: skip
    for name, settings in found.items():
        check(settings)
        assert settings.node.name == name
        assert settings.engine.password.reveal() == "one"
        assert environ(compose["services"][name])["PGPASSWORD"] == "two"
        assert settings.server.admin_host == "0.0.0.0"
        assert compose["services"][name]["command"] == [
            "run", "--config", "/etc/trio_feed/cluster.toml",
        ]  # fmt: skip


def test_what_the_nodes_ask_for_is_there(compose: Any) -> None:
    services, settings = compose["services"], nodes(compose)["push-1"]
    assert {place.host for place in settings.engine.places} <= services.keys()
    assert settings.store.url.shown.startswith("postgresql://feed@postgres:5432/candles")
    postgres = services["postgres"]["environment"]
    assert (postgres["POSTGRES_USER"], postgres["POSTGRES_DB"]) == ("feed", "candles")
    for name, service in services.items():
        assert service.get("hostname", name) == name
        for needed in service.get("depends_on", ()):
            assert needed in services
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or (ROOT / source).exists(), volume
        for secret in service.get("secrets", ()):
            assert compose["secrets"][secret]["environment"] in SECRETS
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), "nothing is open to the world by itself"


def written(service: Any) -> list[str]:
    """What its first start writes into the settings of Valkey."""
    (script,) = service["command"]
    return [
        words[1] for line in script.splitlines() if (words := shlex.split(line))[:1] == ["echo"]
    ]


def test_valkey_is_as_the_page_wants_it(compose: Any) -> None:
    page = (ROOT / "docs/engine.md").read_text(encoding="utf-8")
    wanted = re.findall(r"^((?:appendonly|maxmemory-policy|min-replicas-to-write) \S+)", page, re.M)
    assert len(wanted) == 3
    servers = [s for name, s in compose["services"].items() if name.startswith("valkey-")]
    assert len(servers) == 3, "a primary that wants a replica has two"
    for server in servers:
        assert set(wanted) <= set(written(server))
    sentinels = [s for name, s in compose["services"].items() if name.startswith("sentinel-")]
    assert len(sentinels) == 3
    for sentinel in sentinels:
        assert "sentinel monitor mymaster valkey-1 6379 2" in written(sentinel)


def test_the_balancer_and_prometheus_know_the_nodes(compose: Any) -> None:
    found = nodes(compose)
    text = (ROOT / "deploy/cluster/haproxy.cfg").read_text(encoding="utf-8")
    servers = re.findall(r"^ +server (\S+) (\S+)", text, re.M)
    port, admin = found["push-1"].server.port, found["push-1"].server.admin_port
    pushing = [(n, f"{n}:{port}") for n, s in found.items() if "push" in s.node.roles]
    assert servers[:2] == pushing
    assert sorted(servers[2:]) == sorted((n, f"{n}:{admin}") for n in found)
    assert f"check port {admin}" in text
    (prometheus,) = documents(ROOT / "deploy/cluster/prometheus.yml")
    (scrape,) = prometheus["scrape_configs"]
    assert scrape["job_name"] == "trio_feed"  # what alerts ask for
    assert scrape["static_configs"] == [{"targets": [f"{n}:{admin}" for n in found]}]


def test_pods_are_nodes_with_the_names_of_the_pods(tmp_path: Path) -> None:
    objects = {
        each["kind"] + each["metadata"]["name"]: each for each in documents(CLUSTER_KUBERNETES)
    }
    (tmp_path / "own.toml").write_text(objects["ConfigMaptrio-feed-cluster"]["data"]["own.toml"])
    found: dict[str, Settings] = {}
    for kind, role in (("StatefulSet", "ingest"), ("Deployment", "push")):
        spec = objects[f"{kind}trio-feed-{role}"]["spec"]
        pod = spec["template"]
        assert spec["replicas"] == 2
        assert spec["selector"]["matchLabels"] == pod["metadata"]["labels"]
        (container,) = pod["spec"]["containers"]
        named, *others = container["env"]
        assert named["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
        variables = {named["name"]: "pod-0", **{each["name"]: each["value"] for each in others}}
        settings = found[role] = load([CLUSTER, tmp_path / "own.toml"], environ=variables)
        check(settings)
        assert settings.node.roles == (role,)
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        assert ports == {"clients": settings.server.port, "admin": settings.server.admin_port}
        volumes = {each["name"] for each in pod["spec"]["volumes"]}
        assert {each["name"] for each in container["volumeMounts"]} == volumes
        assert pod["spec"]["securityContext"]["runAsUser"] == 10001
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        budget = objects[f"PodDisruptionBudgettrio-feed-{role}"]["spec"]
        assert budget["selector"] == spec["selector"]
    service = objects["Servicetrio-feed-push"]["spec"]
    assert service["selector"]["role"] == "push"
    assert found["push"].server.admin_host == "0.0.0.0", "where probes and Prometheus ask"


def test_the_dashboard_has_a_row_for_the_cluster() -> None:
    board = json.loads(deployment.DASHBOARD.read_text(encoding="utf-8"))
    rows = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
    assert rows[-1] == "Cluster"
