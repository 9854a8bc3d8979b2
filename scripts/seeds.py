"""``scripts/seeds``: many seeds of scripts/simulate, resumable; see ``--help``.

Arguments that it does not know are scripts/simulate's.  A seed's line in the state file is the
line of JSON of its run with ``exit``, the arguments and the time it took; a run that printed no
JSON (it died, or was ended after ``--limit-s``) has ``problem``.  Exit code 0: all seeds are in the
file and all came out clean.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # the scripts lie beside this one, installed or not
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import trio

from scripts.simulate_judge import MUST_BE_ZERO as OF_ONE
from scripts.simulate_nodes_judge import MUST_BE_ZERO as OF_SEVERAL

ROOT = Path(__file__).resolve().parent.parent
MUST_BE_ZERO = tuple(dict.fromkeys((*OF_ONE, *OF_SEVERAL)))
_COUNTED = ("waiting", "marked", "trades_lost", "requests", "weight", "reconnects", "log_lines")
_LAST_WORDS = 400

Outcome = Mapping[str, Any]


def parse_seeds(text: str) -> list[int]:
    """``1-200``, ``3,5,9`` or both -> seeds, ascending.  Raises ValueError."""
    seeds: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        begin, end = int(first), int(last if dash else first)
        if end < begin:
            raise ValueError(f"{part} ends before it begins")
        seeds.update(range(begin, end + 1))
    return sorted(seeds)


def read_state(path: Path, arguments: Sequence[str]) -> dict[int, Outcome]:
    """Seed -> its last line in the file, of runs with these arguments.  A line that was cut off
    (the machine died) counts as none."""
    known: dict[int, Outcome] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            outcome = json.loads(line)
        except json.JSONDecodeError:
            continue
        if outcome.get("arguments") == [*arguments]:
            known[outcome["seed"]] = outcome
    return known


def summary(seeds: Iterable[int], known: Mapping[int, Outcome]) -> dict[str, Any]:
    """What the seeds came to; ``failed`` says of each what is not zero."""
    mine = {seed: known[seed] for seed in seeds if seed in known}
    sums: Counter[str] = Counter()
    for outcome in mine.values():
        for name in (*MUST_BE_ZERO, *_COUNTED):
            sums[name] += outcome.get(name) or 0
    hours = sum(outcome.get("virtual_hours", 0.0) for outcome in mine.values())
    wall_s = sum(outcome.get("wall_s", 0.0) for outcome in mine.values())
    return {
        "seeds": len([*seeds]),
        "run": len(mine),
        "clean": sum(not complaint(outcome) for outcome in mine.values()),
        "virtual_hours": round(hours, 1),
        "wall_s_per_hour": round(wall_s / hours, 2) if hours else None,
        **sums,
        "failed": {seed: why for seed, outcome in mine.items() if (why := complaint(outcome))},
    }


def complaint(outcome: Outcome) -> str:
    """Why a run is not clean; empty: it is."""
    broken = [f"{name} {outcome[name]}" for name in MUST_BE_ZERO if outcome.get(name)]
    if outcome.get("exit") and not broken:
        return str(outcome.get("problem") or f"exit {outcome['exit']}")
    return ", ".join(broken)


async def run_seeds(
    seeds: Iterable[int], arguments: Sequence[str], state: Path, *, jobs: int, limit_s: float
) -> None:
    """Run them in turn, ``jobs`` at once, and add a line for each to ``state`` as it ends."""
    waiting = iter([*seeds])

    async def work() -> None:
        for seed in waiting:
            outcome = await _run(seed, arguments, limit_s)
            with state.open("a") as file:
                file.write(json.dumps(outcome) + "\n")
            print(f"seed {seed}: {complaint(outcome) or 'clean'}", file=sys.stderr)

    async with trio.open_nursery() as nursery:
        for _ in range(jobs):
            nursery.start_soon(work)


async def _run(seed: int, arguments: Sequence[str], limit_s: float) -> Outcome:
    command = [sys.executable, "scripts/simulate.py", "--seed", str(seed), "--json", *arguments]
    environ = os.environ | {"PYTHONHASHSEED": "0"}
    outcome: dict[str, Any] = {"problem": f"ended after {limit_s:g} s", "exit": -1}
    with trio.move_on_after(limit_s):
        done = await trio.run_process(
            command, cwd=ROOT, env=environ, check=False, capture_stdout=True, capture_stderr=True
        )
        outcome = {"exit": done.returncode}
        try:
            outcome |= json.loads(done.stdout)
        except json.JSONDecodeError:
            outcome["problem"] = done.stderr.decode(errors="replace")[-_LAST_WORDS:]
    return outcome | {"seed": seed, "arguments": [*arguments]}


def main(words: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    options, arguments = _parser().parse_known_args(words)
    known = read_state(options.state, arguments)
    todo = [seed for seed in options.seeds if seed not in known]
    if todo and not options.summary:
        run = partial(run_seeds, jobs=options.jobs, limit_s=options.limit_s)
        trio.run(run, todo, arguments, options.state)
        known = read_state(options.state, arguments)
    result = summary(options.seeds, known)
    print(json.dumps(result))
    return int(result["clean"] < result["seeds"])


def _seeds(text: str) -> list[int]:
    try:
        return parse_seeds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 1-200: {error}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/seeds", description=__doc__, allow_abbrev=False)
    parser.add_argument("--seeds", type=_seeds, required=True, help="1-200, or 3,5,9")
    parser.add_argument("--state", type=Path, required=True, help="a line of JSON per seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at once")
    parser.add_argument("--limit-s", type=float, default=7200.0, help="longest run of a seed")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
