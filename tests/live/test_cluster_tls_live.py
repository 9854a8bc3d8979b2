"""A cluster whose servers and sentinels speak TLS only, and want a password and a certificate."""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trustme
from attrs import define
from support.engine_contract import A, append
from support.valkey import (
    SECRET,
    TlsFiles,
    ValkeyCluster,
    engine_of,
    refused,
    valkey_cluster,
    valkey_server,
)

from scripts import soak_cluster
from scripts.soak_cluster import MUST_BE_ZERO, ClusterPlan
from scripts.soak_cluster_nodes import NODES, why_not
from trio_feed.bus.engine import EMPTY, make_engine
from trio_feed.settings import EngineSettings, Secret

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs servers of Linux")
_DAY = timedelta(days=1)


@define
class Papers:
    """``own``: for 127.0.0.1; of the same authority one that is for another name, and one of
    yesterday; ``stranger``: the file of another authority."""

    own: TlsFiles
    other_name: TlsFiles
    expired: TlsFiles
    stranger: str


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("papers")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(folder / "stranger.pem"))
    now = datetime.now(UTC)

    def written(name: str, issued: trustme.LeafCert) -> TlsFiles:
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key))
        return TlsFiles(str(folder / "ca.pem"), str(certificate), str(key))

    return Papers(
        written("own", authority.issue_cert("127.0.0.1")),
        written("other", authority.issue_cert("valkey.example.com")),
        written(
            "old",
            authority.issue_cert("127.0.0.1", not_before=now - 9 * _DAY, not_after=now - _DAY),
        ),
        str(folder / "stranger.pem"),
    )


@pytest.fixture(scope="module")
def cluster(papers: Papers) -> Iterator[ValkeyCluster]:
    with valkey_cluster("redis", replicas=1, password=SECRET, tls=papers.own) as made:
        yield made


def settings(cluster: ValkeyCluster, **changed: str) -> EngineSettings:
    values = {**cluster.of_node(), **changed}
    password = Secret(values.pop("password"))
    return engine_of(*cluster.urls, timeout_s=1.4, password=password, **values)


async def test_sentinels_over_tls_let_us_in(cluster: ValkeyCluster) -> None:
    with trio.fail_after(30):
        async with make_engine(settings(cluster), b"one") as engine:
            assert await engine.append([append(EMPTY, (7, 1))]) == [(7, 1)]
            assert await engine.read({A: EMPTY}, wait_s=1, limit=1)


async def test_what_is_wrong_with_papers_is_one_line(
    papers: Papers, cluster: ValkeyCluster
) -> None:
    with trio.fail_after(60):
        begin = "engine.urls: 127.0.0.1:"
        line = await refused(settings(cluster, ca_file=papers.stranger))
        assert line.startswith(begin)
        assert ": its certificate does not verify: " in line
        assert line.endswith("(engine.ca_file)")
        line = await refused(settings(cluster, ca_file=""))
        assert line.endswith("(engine.ca_file)")
        line = await refused(settings(cluster, tls_cert_file="", tls_key_file=""))
        # The alert that says so may be lost behind the end of the connection.
        assert "or wants one: engine.tls_cert_file" in line or "a certificate of ours?" in line
        old = papers.expired.of_node()
        del old["ca_file"]
        line = await refused(settings(cluster, **old))
        assert "it refuses our certificate" in line or "a certificate of ours?" in line
        line = await refused(settings(cluster, password="wrong"))
        assert line.endswith(": engine.user or engine.password is wrong")
        plain = [url.replace("sentinels:", "sentinel:") for url in cluster.urls]
        line = await refused(engine_of(*plain, password=Secret(SECRET)))
        assert ": it hangs up at once; is it Valkey, and does it want TLS" in line


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("expired", "certificate has expired (it needs a new one; is our clock right?)"),
        (
            "other_name",
            "(it must be for the name, or address, in engine.urls or told by sentinels)",
        ),
    ],
    ids=["expired", "other name"],
)
async def test_certificates_that_are_not_good(papers: Papers, name: str, says: str) -> None:
    files: TlsFiles = getattr(papers, name)
    words = {"requirepass": SECRET, "tls_auth_clients": "no"}
    with trio.fail_after(30), valkey_server("redis", tls=files, **words) as server:
        ours = papers.own.of_node()
        line = await refused(engine_of(server.url, timeout_s=1.4, password=Secret(SECRET), **ours))
        assert line.startswith("engine.urls: 127.0.0.1:")
        assert line.endswith(says)


async def test_a_takeover_and_a_failover(papers: Papers, tmp_path: Path) -> None:
    if why := why_not("redis"):
        pytest.skip(why)
    faults = ("kill ingest", "kill engine")

    def log_of(node: str) -> str:
        return (tmp_path / f"{node}.log").read_text()

    plan = ClusterPlan(minutes=1, clients=4, every_s=1, lease_s=1.5, faults=faults)
    engine = valkey_cluster("redis", password=SECRET, tls=papers.own)
    with trio.fail_after(150):
        result = await soak_cluster.run(plan, tmp_path, engine=engine)
    print(json.dumps(result))
    assert {name: result[name] for name in MUST_BE_ZERO if result[name]} == {}
    assert result["faults"] == 2
    assert result["closed"] > 4 * 5
    assert SECRET not in "".join(map(log_of, NODES))
