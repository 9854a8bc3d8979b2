"""``scripts/bench NAME``: ratios against others, in the same run.

Every figure is a median over rounds; within a round each implementation runs once, in turn, so that
what else the machine does falls on all of them.  Absolute figures say what this machine does and
are printed for that; only the ratios mean something elsewhere.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # the package lies beside this folder, installed or not
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.benches.result import Result, shown

BENCHES = (
    "inbound",
    "parse",
    "core",
    "fanout",
    "scenario",
    "memory",
    "connect",
    "store",
    "startup",
    "growth",
    "private",
    "workers",
    "engine",
)
"""Each is a module of :mod:`scripts.benches` with ``run(quick) -> Result``."""


def measured(name: str, quick: bool) -> Result:
    """Run one bench."""
    result: Result = importlib.import_module(f"scripts.benches.{name}").run(quick)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    made = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    made.add_argument("name", choices=[*BENCHES, "all"])
    made.add_argument("--quick", action="store_true", help="below 45 s, and less to be trusted")
    made.add_argument("--json", action="store_true", help="one object per bench")
    options = made.parse_args(argv)
    for name in BENCHES if options.name == "all" else (options.name,):
        result = measured(name, options.quick).json()
        print(json.dumps(result) if options.json else shown(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
