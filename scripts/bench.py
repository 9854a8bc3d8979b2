"""``scripts/bench NAME``: ratios against others, in the same run.

Every figure is a median over rounds; within a round each implementation runs once, in turn, so that
what else the machine does falls on all of them.  Absolute figures say what this machine does and
are printed for that; only the ratios mean something elsewhere.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":  # the package lies beside this folder, installed or not
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import bench_inbound

BENCHES: Mapping[str, Callable[[bool], dict[str, Any]]] = {"inbound": bench_inbound.run}
"""By name; the argument is ``--quick``.  Returns ``rows`` (impl -> figures of the rounds, unit),
``ratios`` (name -> (numerator, denominator)) and ``targets`` (name of a ratio -> the least)."""


def summed_up(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Medians, ratios and whether targets are met."""
    rows = {impl: median(figures) for impl, figures in found["rows"].items() if figures}
    ratios = {
        title: rows[ours] / rows[other]
        for title, (ours, other) in found["ratios"].items()
        if ours in rows and other in rows
    }
    targets = {
        title: {"target": least, "measured": ratios[title], "met": ratios[title] >= least}
        for title, least in found["targets"].items()
        if title in ratios
    }
    return {
        "name": name,
        "rows": [
            {
                "impl": impl,
                "value": round(rows[impl]),
                "unit": found["unit"],
                "spread": [round(min(figures)), round(max(figures))],
            }
            for impl, figures in found["rows"].items()
            if figures
        ],
        "ratios": {title: round(ratio, 3) for title, ratio in ratios.items()},
        "targets": targets,
        "skipped": found["skipped"],
    }


def shown(result: Mapping[str, Any]) -> str:
    """A table for people."""
    lines = [f"{result['name']}"]
    for row in result["rows"]:
        low, high = row["spread"]
        lines.append(
            f"  {row['impl']:<34} {row['value']:>12,} {row['unit']}  ({low:,} to {high:,})"
        )
    for title, ratio in result["ratios"].items():
        target = result["targets"].get(title)
        verdict = (
            ""
            if target is None
            else f"  target {target['target']:g}: " + ("met" if target["met"] else "MISSED")
        )
        lines.append(f"  {title:<62} {ratio:6.2f}{verdict}")
    lines += [f"  skipped: {each}" for each in result["skipped"]]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    made = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    made.add_argument("name", choices=[*BENCHES, "all"])
    made.add_argument("--quick", action="store_true", help="below 45 s, and less to be trusted")
    made.add_argument("--json", action="store_true", help="one object per bench")
    options = made.parse_args(argv)
    for name in BENCHES if options.name == "all" else (options.name,):
        result = summed_up(name, BENCHES[name](options.quick))
        print(json.dumps(result) if options.json else shown(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
