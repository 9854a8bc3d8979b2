"""``python -m scripts.engine_model [seeds] [first] [--break RULE]``: the model of the engine over
many seeds; 4,000 take some 12 s.  Exit code 1, and the seeds, where a client sees a gap or a
duplicate."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # the package lies beside this folder, installed or not
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trio_feed.testing.engine_model import ALL, Broken, Rule, run

_SHOWN = 3


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=int, nargs="?", default=4000)
    parser.add_argument("first", type=int, nargs="?", default=0)
    parser.add_argument("--break", dest="broken", choices=list(Rule), action="append", default=[])
    wanted = parser.parse_args(arguments)
    rules = ALL - {Rule(name) for name in wanted.broken}
    happened, bad = Counter[str](), 0
    for seed in range(wanted.first, wanted.first + wanted.seeds):
        try:
            happened += run(seed, rules)
        except Broken as broken:
            bad += 1
            if bad <= _SHOWN:
                print(f"seed {seed}: {broken}")
    counts = ", ".join(f"{count:,} {what}" for what, count in happened.most_common())
    print(f"{wanted.seeds:,} seeds, {bad} bad; {counts}")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
