"""What is installed: the steps of the Dockerfile without a container, an sdist and its wheel.

The first one asks the package index; where there is none it is skipped.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import deployment
from support.deployment import ROOT

from trio_feed import __version__

INSTALL_S = 300
END_S = 60
_PREFIX = "/opt/trio_feed"
_INSIDE = "/etc/trio_feed"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds what the image holds: ``opt`` and ``etc``, made by the Dockerfile's own
    steps, with other paths."""
    root = tmp_path_factory.mktemp("image")
    build, final = deployment.dockerfile()
    work = root / "build"
    for step in build:
        if step.verb == "WORKDIR":
            work.mkdir()
        elif step.verb == "COPY":
            _copy(step.words.split(), ROOT, work)
        elif step.verb == "RUN":
            _run(step.words.replace(_PREFIX, str(root / "opt")), work)
    for step in final:
        if step.verb == "COPY" and "--from" not in step.words:
            (root / "etc").mkdir()
            _copy(step.words.replace(_INSIDE, str(root / "etc")).split(), ROOT, root)
    shutil.rmtree(work)
    return root


def _copy(words: list[str], source: Path, work: Path) -> None:
    *names, target = words
    for name in names:
        where = work / target
        if (source / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source / name, where, ignore=ignored)
        else:
            shutil.copy(source / name, where)


def _run(command: str, work: Path) -> None:
    command = command.replace("python -m venv", f"{sys.executable} -m venv")
    done = subprocess.run(
        command,
        shell=True,
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
        timeout=INSTALL_S,
    )
    if "No matching distribution" in done.stderr or "Failed to establish" in done.stderr:
        pytest.skip("no package index is in reach")
    assert done.returncode == 0, done.stdout + done.stderr


def environment(image: Path, **more: str) -> dict[str, str]:
    """Nothing of this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    path = f"{image / 'opt/bin'}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1", **more}


def test_the_settings_of_the_image_pass_in_an_empty_folder(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["trio-feed", "check", "--config", str(image / "etc/production.toml")]
    done = subprocess.run(
        words, cwd=tmp_path, env=environment(image), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kline"]["max_subscriptions_per_client"] == 200
    assert list(tmp_path.iterdir()) == []
    size = sum(f.lstat().st_size for f in (image / "opt").rglob("*") if not f.is_symlink())
    with capsys.disabled():
        print(f"\nthe installed environment has {size / 1e6:.0f} MB")
    assert size < 150e6
    assert not list((image / "opt/bin").glob("pip*"))
    shared = image / "opt/share/trio_feed/config"
    assert {path.name for path in shared.iterdir()} == {
        path.name for path in (ROOT / "config").iterdir()
    }


@contextmanager
def started(image: Path, folder: Path) -> Iterator[dict[str, str]]:
    """What the image runs, with a simulated exchange and other ports; its URLs."""
    _, final = deployment.dockerfile()
    steps = {step.verb: step.words for step in final}
    words = [*json.loads(steps["ENTRYPOINT"]), *json.loads(steps["CMD"])]
    words = [word.replace(_INSIDE, str(image / "etc")) for word in words]
    variables = {
        "TRIO_FEED__SERVER__PORT": "0",
        "TRIO_FEED__SERVER__ADMIN_PORT": "0",
        "TRIO_FEED__SIMULATOR__ENABLED": "true",
    }
    with subprocess.Popen(
        words, cwd=folder, env=environment(image, **variables), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            events = map(json.loads, process.stdout)
            ready = next(event for event in events if event["event"] == "service.ready")
            yield ready["urls"]
            process.terminate()
            process.communicate(timeout=END_S)
            assert process.returncode == 0
        finally:
            process.kill()


def test_the_image_runs_and_its_health_check_knows(image: Path, tmp_path: Path) -> None:
    _, final = deployment.dockerfile()
    (health,) = [step.words for step in final if step.verb == "HEALTHCHECK"]
    program, *words = json.loads(health.partition("CMD ")[2])
    with started(image, tmp_path) as urls:
        port = urls["admin"].rpartition(":")[2]
        asked = [word.replace(":9090", f":{port}") for word in words]
        check = [shutil.which(program, path=environment(image)["PATH"]) or program, *asked]
        assert subprocess.run(check, env=environment(image), check=False).returncode == 0
        with urllib.request.urlopen(f"{urls['admin']}/metrics", timeout=10) as page:
            assert b"trio_feed_build_info" in page.read()
        with urllib.request.urlopen(f"{urls['http'].replace('0.0.0.0', '127.0.0.1')}/") as page:
            assert b"<html" in page.read().lower()
    done = subprocess.run(check, env=environment(image), capture_output=True, check=False)
    assert done.returncode == 1, "and says so when it is gone"
    assert (tmp_path / "data/production.db").exists()


def _build(source: Path, kind: str) -> Path:
    """What ``python -m build`` does, without an environment of its own."""
    code = f"from setuptools import build_meta; build_meta.build_{kind}('out')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (made,) = (source / "out").iterdir()
    return made


def test_an_sdist_makes_a_wheel_with_everything_in_it(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77", reason="scripts/test brings a newer one")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "CHANGELOG.md"):
        shutil.copy(ROOT / name, source)
    for name in ("trio_feed", "config"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "tests").mkdir()
    (source / "tests/test_something.py").touch()
    sdist = _build(source, "sdist")
    assert sdist.name == f"trio_feed-{__version__}.tar.gz"
    with tarfile.open(sdist) as archive:
        assert [name for name in archive.getnames() if "/tests" in name] == []
        archive.extractall(tmp_path / "sdist", filter="data")
    wheel = _build(tmp_path / "sdist" / f"trio_feed-{__version__}", "wheel")
    assert wheel.name == f"trio_feed-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"trio_feed-{__version__}.dist-info/METADATA").decode()
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "trio_feed").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert package <= names, "every file of the package: code, page, demo settings, py.typed"
    data = f"trio_feed-{__version__}.data/data/share/trio_feed/config"
    assert {f"{data}/{path.name}" for path in (ROOT / "config").iterdir()} <= names
    assert f"\nVersion: {__version__}\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata
