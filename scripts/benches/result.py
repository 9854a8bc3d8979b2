"""What a bench has found: figures of each round, ratios of them, and targets."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from attrs import define, field, frozen


@frozen
class Target:
    """``of``: the name of a ratio or of a row.  ``most``: an upper bound, else a lower one."""

    of: str
    bound: float
    most: bool = False

    def met(self, measured: float) -> bool:
        return measured <= self.bound if self.most else measured >= self.bound


@define
class Result:
    """``rows``: figures of the rounds by name, in ``unit`` or in ``units[name]``.  ``ratios``: by
    title the two rows, numerator first.  ``skipped``: what could not be measured, and why."""

    name: str
    unit: str
    ratios: Mapping[str, tuple[str, str]] = field(factory=dict)
    targets: Sequence[Target] = ()
    rows: dict[str, list[float]] = field(factory=dict)
    units: dict[str, str] = field(factory=dict)
    skipped: list[str] = field(factory=list)
    notes: list[str] = field(factory=list)

    def add(self, row: str, figure: float, unit: str | None = None) -> None:
        self.rows.setdefault(row, []).append(figure)
        if unit is not None:
            self.units[row] = unit

    def skip(self, row: str, why: str) -> None:
        text = f"{row}: {why}"
        if text not in self.skipped:
            self.skipped.append(text)

    def rounds(
        self, number: int, kinds: Mapping[str, Callable[[], float]], unit: str | None = None
    ) -> None:
        """Each once per round, in turn.  What fails (RuntimeError) is skipped from then on."""
        failed: set[str] = set()
        for _ in range(number):
            for row, measure in kinds.items():
                if row not in failed:
                    try:
                        self.add(row, measure(), unit)
                    except RuntimeError as error:
                        failed.add(row)
                        self.skip(row, str(error))

    def ratio(self, ours: str, other: str) -> float | None:
        """The median of the rounds' own ratios: what both met in a round falls out."""
        above, below = self.rows.get(ours, ()), self.rows.get(other, ())
        pairs = [a / b for a, b in zip(above, below, strict=False) if b]
        return median(pairs) if pairs else None

    def json(self) -> dict[str, Any]:
        rows = {row: median(figures) for row, figures in self.rows.items() if figures}
        ratios = {t: r for t, pair in self.ratios.items() if (r := self.ratio(*pair)) is not None}
        targets = {}
        for target in self.targets:
            measured = ratios.get(target.of, rows.get(target.of))
            if measured is not None:
                targets[target.of] = {
                    "target": target.bound,
                    "kind": "at most" if target.most else "at least",
                    "measured": _rounded(measured),
                    "met": target.met(measured),
                }
        return {
            "name": self.name,
            "rows": [
                {
                    "impl": row,
                    "value": _rounded(value),
                    "unit": self.units.get(row, self.unit),
                    "spread": [_rounded(min(self.rows[row])), _rounded(max(self.rows[row]))],
                    "rounds": len(self.rows[row]),
                }
                for row, value in rows.items()
            ],
            "ratios": {title: round(ratio, 3) for title, ratio in ratios.items()},
            "targets": targets,
            "skipped": self.skipped,
            "notes": self.notes,
        }


def shown(result: Mapping[str, Any]) -> str:
    """A table for people."""
    lines = [result["name"]]
    for row in result["rows"]:
        low, high = row["spread"]
        spread = f"  ({low:,} to {high:,})" if row["rounds"] > 1 else ""
        lines.append(f"  {row['impl']:<58} {row['value']:>12,} {row['unit']}{spread}")
    targets = result["targets"]
    figures = {**dict.fromkeys(targets), **result["ratios"]}
    for title, ratio in figures.items():
        target = targets.get(title)
        measured = ratio if target is None else target["measured"]
        verdict = (
            ""
            if target is None
            else f"  {target['kind']} {target['target']:g}: "
            + ("met" if target["met"] else "MISSED")
        )
        lines.append(f"  {title:<66} {measured:8,.2f}{verdict}")
    lines += [f"  skipped: {each}" for each in result["skipped"]]
    lines += [f"  note: {each}" for each in result["notes"]]
    return "\n".join(lines)


def percentile(ordered: Sequence[float], share: float) -> float:
    """Of sorted values; 0 where there are none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def complain(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _rounded(value: float) -> float:
    """Three digits that mean something."""
    return round(value) if abs(value) >= 100 else float(f"{value:.3g}")
