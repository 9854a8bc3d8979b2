"""The pages of ``docs/`` that are made of the code: written anew, or checked with ``--check``."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":  # the package lies beside this folder, installed or not
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import pages_logs, pages_metrics, pages_settings

ROOT = Path(__file__).resolve().parent.parent
PAGES: dict[str, Callable[[], str]] = {
    "docs/logs.md": pages_logs.page,
    "docs/settings-reference.md": pages_settings.page,
    "docs/metrics.md": pages_metrics.page,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1: outdated")
    check = parser.parse_args().check
    outdated = 0
    for name, make in PAGES.items():
        path, text = ROOT / name, make()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        outdated += 1
        if check:
            print(f"{name} is outdated: scripts/pages")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"{name} written")
    return 1 if check and outdated else 0


if __name__ == "__main__":
    sys.exit(main())
