"""``docs/logs.md``: every event that the package can log.

Names, levels and fields come from the source, meanings and advice from ``docs/logs.toml``.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from scripts.pages_events import LEVELS, events

TEXTS = Path(__file__).resolve().parent.parent / "docs" / "logs.toml"


@dataclass(frozen=True)
class Text:
    """``meaning`` of an event, and what to ``do``; ``level`` where the source shows more than one,
    ``fields`` that only exist at run time."""

    meaning: str
    do: str
    level: str = ""
    fields: tuple[str, ...] = ()


def texts(path: Path = TEXTS) -> dict[str, Text]:
    """By event, in the order of the file."""
    areas = tomllib.loads(path.read_text(encoding="utf-8"))
    return {
        f"{area}.{name}": Text(
            row["meaning"], row["do"], row.get("level", ""), tuple(row.get("fields", ()))
        )
        for area, rows in areas.items()
        for name, row in rows.items()
    }


def page() -> str:
    """The text of ``docs/logs.md``."""
    found, said = events(), texts()
    if missing := found.keys() - said.keys():
        raise SystemExit(f"docs/logs.toml says nothing of {', '.join(sorted(missing))}")
    if gone := said.keys() - found.keys():
        raise SystemExit(f"docs/logs.toml has what nothing logs: {', '.join(sorted(gone))}")
    lines = [_HEAD]
    area = ""
    for name, text in said.items():
        if name.partition(".")[0] != area:
            area = name.partition(".")[0]
            lines += ["", f"## {area}", "", "| event | level | fields | meaning | what to do |"]
            lines.append("|---|---|---|---|---|")
        event = found[name]
        shown = event.levels & {text.level} if text.level else event.levels
        levels = ", ".join(level for level in LEVELS if level in shown)
        fields = ", ".join(f"`{each}`" for each in dict.fromkeys([*event.fields, *text.fields]))
        lines.append(
            f"| `{name}` | {levels} | {fields} | {text.meaning} | {text.do or 'nothing'} |"
        )
    return "\n".join(lines) + "\n"


_HEAD = """# Log events

<!-- Made by scripts/pages of the source and of docs/logs.toml; edit that, not this. -->

Every line has `event`, `level` and `timestamp` (UTC); its other fields stand below. Fields that end
in `_ms` are unix milliseconds, in `_s` seconds; `problem` is a cause in words, `advice` what to do,
`left_out` how many lines of the same kind were left out before this one. How the log is written and
kept: [operating.md](operating.md#logs). By symptom instead of by name: [runbook.md](runbook.md)."""
