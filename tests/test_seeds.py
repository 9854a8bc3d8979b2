"""``scripts/seeds``: what is in the file is not run again, and a seed that failed is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts import seeds
from scripts.simulate_judge import MUST_BE_ZERO

MORE = ["--hours", "2"]


def outcome(seed: int, **more: Any) -> dict[str, Any]:
    clean = dict.fromkeys(MUST_BE_ZERO, 0) | {"seed": seed, "exit": 0, "arguments": MORE}
    return clean | {"virtual_hours": 2.0, "wall_s": 3.0} | more


def test_seeds_are_named_by_ranges() -> None:
    assert seeds.parse_seeds("7,1-3") == [1, 2, 3, 7]
    with pytest.raises(ValueError, match="ends before"):
        seeds.parse_seeds("9-3")


def test_what_is_in_the_file_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state, ran = tmp_path / "state", list[int]()

    async def run(seed: int, arguments: list[str], _limit_s: float) -> dict[str, Any]:
        assert arguments == MORE
        ran.append(seed)
        return outcome(seed)

    monkeypatch.setattr(seeds, "_run", run)
    state.write_text(json.dumps(outcome(2)) + "\n" + '{"seed": 3, "exi')  # cut off
    state.write_text(state.read_text() + "\n" + json.dumps(outcome(1) | {"arguments": []}) + "\n")
    words = ["--seeds", "1-3", "--state", str(state), "--jobs", "1", *MORE]
    assert seeds.main(words) == 0
    assert ran == [1, 3]
    assert seeds.main(words) == 0
    assert ran == [1, 3]
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["seeds"], result["run"], result["clean"], result["failed"]) == (3, 3, 3, {})
    assert result["wall_s_per_hour"] == 1.5


def test_failures_are_told_and_are_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    rows = [
        outcome(1, lost=2, exit=1),
        {"seed": 2, "exit": -9, "problem": "MemoryError", "arguments": MORE},
        outcome(3),
    ]
    state.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--seeds", "1-4", "--state", str(state), "--summary", *MORE]
    assert seeds.main(words) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["failed"] == {"1": "lost 2", "2": "MemoryError"}
    assert (result["run"], result["clean"], result["lost"]) == (3, 1, 2)
    assert seeds.main(["--seeds", "3", "--state", str(state), "--summary", *MORE]) == 0
