"""mypy keeps the three clocks apart: each of these lines is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAD = """
from trio_feed.instants import Exchange, Mono, Wall

mono, wall, exchange = Mono(1.0), Wall(2.0), Exchange(3.0)
length_s: float = 5.0
"""
GOOD = [
    "length: float = mono - mono",
    "later: Mono = mono + length_s",
    "number: float = float(wall) - float(exchange)",
    "early: bool = min(exchange, Exchange(4.0)) < exchange",
]
BAD = [
    "wall - mono",
    "wall - exchange",
    "exchange - mono",
    "wall + wall",
    "wall < mono",
    "length_s - mono",
    "mono - length_s",
    "later: Mono = wall",
    "number: float = mono",
    "both = max(wall, exchange).nothing",
]


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The lines that mypy does not take."""
    file = tmp_path_factory.mktemp("types") / "mixed.py"
    text = "\n".join([HEAD, *GOOD, *BAD, ""])
    file.write_text(text)
    words = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(file)]
    root = Path(__file__).parents[2]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 1, done.stdout + done.stderr
    found = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    return [text.splitlines()[number - 1] for number in sorted(found)]


def test_what_mixes_the_clocks_is_refused_and_nothing_else(refused: list[str]) -> None:
    assert refused == BAD
