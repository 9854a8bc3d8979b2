"""``scripts/mutate`` over a package of one function, as a process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("coverage")

TOOL = Path(__file__).resolve().parents[2] / "scripts" / "mutate.py"
FILES = {
    "pyproject.toml": '[tool.pytest.ini_options]\npythonpath = ["."]\n',
    "pkg/__init__.py": "",
    "pkg/room/__init__.py": "",
    "pkg/room/calc.py": """\
def fee(amount):
    if amount > 100:
        return amount - 1
    return amount


def count(items):
    left = 2
    while left:
        left -= 1
    return len(items) * 1


def unseen(amount):
    return amount + 1
""",
    "tests/test_calc.py": """\
from pkg.room.calc import count, fee


def test_fee():
    assert fee(200) == 199
    assert fee(50) == 50


def test_count():
    assert count([]) == 0
""",
}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        file = tmp_path / "toy" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "toy"


def mutate(toy: Path, *options: str) -> tuple[int, list[dict[str, object]]]:
    command = [sys.executable, str(TOOL), "--root", str(toy), "--package", "pkg", "--json"]
    command += ["--patience", "1"]  # CPU seconds of two endless mutants
    # The toy's tests use no plugin, and to load those of ours takes most of their time.
    env = {**os.environ, "TMPDIR": str(toy.parent), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=120, env=env, check=False
    )
    assert done.stdout, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_what_is_noticed_and_what_is_not(toy: Path) -> None:
    before = {name: (toy / name).read_text() for name in FILES}
    code, lines = mutate(toy, "--state", str(toy.parent / "state"))
    verdicts = {(line["operator"], line["before"]): line for line in lines[:-1]}

    def verdict(operator: str, line: str) -> object:
        return verdicts[operator, line]["verdict"]

    assert verdict("negate", "if amount > 100:") == "noticed"
    assert verdict("arithmetic", "return amount - 1") == "noticed"
    assert verdict("compare", "if amount > 100:") == "survived"  # nobody asks for exactly 100
    assert verdict("arithmetic", "return len(items) * 1") == "noticed"
    assert verdict("return-none", "return amount + 1") == "not covered"
    assert lines[-1]["controls_failed"] == []
    assert code == 0
    assert {name: (toy / name).read_text() for name in FILES} == before
    assert not list(toy.parent.glob("mutate-*"))  # the copy has gone
    assert list((toy / ".mutate").glob("map-*.json"))

    # Again: everything is known.
    assert mutate(toy, "--state", str(toy.parent / "state")) == (code, lines)


def test_tests_that_hang_have_noticed(toy: Path) -> None:
    _, lines = mutate(toy)
    [endless] = [line for line in lines if line.get("after") == "left += 1"]
    assert (endless["verdict"], endless["by"]) == ("noticed", "hang")


def test_a_suite_that_fails_unbroken_is_said(toy: Path) -> None:
    (toy / "tests" / "test_calc.py").write_text("import nothing_of_that_name\n")
    process = [sys.executable, str(TOOL), "--root", str(toy), "--package", "pkg"]
    done = subprocess.run(process, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "did not run" in done.stderr
