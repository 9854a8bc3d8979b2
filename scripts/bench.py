"""``scripts/bench NAME``: ratios against others, in the same run.

Every figure is a median over rounds; within a round each implementation runs once, in turn, so that
what else the machine does falls on all of them.  Absolute figures say what this machine does and
are printed for that; only the ratios mean something elsewhere.
"""

import argparse
import importlib
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
"""Each is a module of :mod:`scripts.benches` with ``run(quick) -> Result``; those of the options
below that it has are arguments of it."""


def measured(name: str, quick: bool, options: Mapping[str, Any]) -> Result:
    """Run one bench.  Raises ValueError for an option that it does not have."""
    run = importlib.import_module(f"scripts.benches.{name}").run
    if unknown := options.keys() - inspect.signature(run).parameters.keys():
        raise ValueError(f"{name} has no --{min(unknown)}")
    result: Result = run(quick, **options)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    made = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    made.add_argument("name", choices=[*BENCHES, "all"])
    made.add_argument("--quick", action="store_true", help="below 45 s, and less to be trusted")
    made.add_argument("--json", action="store_true", help="one object per bench")
    made.add_argument("--clients", type=int, help="fanout: so many instead of 4,000")
    made.add_argument("--peers", nargs="+", help="fanout: only what begins with one of these words")
    made.add_argument("--subscriptions", type=int, help="scenario: so many of each client, not one")
    options = made.parse_args(argv)
    own = {"clients", "peers", "subscriptions"}
    given = {key: value for key, value in vars(options).items() if key in own and value is not None}
    for key, value in given.items():
        if isinstance(value, int) and value < 1:
            made.exit(2, f"bench: --{key}: {value} is none; 1 or more\n")
    for name in BENCHES if options.name == "all" else (options.name,):
        try:
            result = measured(name, options.quick, given).json()
        except ValueError as error:
            made.exit(2, f"bench: {error}\n")
        print(json.dumps(result) if options.json else shown(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
