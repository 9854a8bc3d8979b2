"""``scripts/soak --simulate N``: as many seeds of scripts/simulate as asked for, on all cores."""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

ROOT = Path(__file__).resolve().parent.parent


async def simulate_many(count: int, first: int, more: Sequence[str]) -> dict[str, Any]:
    """scripts/simulate with ``count`` seeds on all cores -> the sums, and which seeds failed."""
    began, results = time.perf_counter(), dict[int, dict[str, Any]]()
    turns = trio.CapacityLimiter(os.cpu_count() or 1)

    async def one(seed: int) -> None:
        command = [sys.executable, "scripts/simulate.py", "--seed", str(seed), "--json", *more]
        environ = os.environ | {"PYTHONHASHSEED": "0"}
        async with turns:
            done = await trio.run_process(
                command, cwd=ROOT, env=environ, capture_stdout=True, check=False
            )
        results[seed] = {"exit": done.returncode}
        with suppress(json.JSONDecodeError):
            results[seed] |= json.loads(done.stdout)

    async with trio.open_nursery() as nursery:
        for seed in range(first, first + count):
            nursery.start_soon(one, seed)
    sums: Counter[str] = Counter()
    for result in results.values():
        sums.update(
            {k: v for k, v in result.items() if type(v) is int and k not in ("seed", "exit")}
        )
    return {
        **sums,
        "runs": count,
        "virtual_hours": round(sum(r.get("virtual_hours", 0) for r in results.values()), 1),
        "max_detect_s": max((r.get("max_detect_s", 0) for r in results.values()), default=0),
        "failed_seeds": sorted(seed for seed, r in results.items() if r["exit"]),
        "wall_s": round(time.perf_counter() - began, 1),
    }
