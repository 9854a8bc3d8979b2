"""What the papers of the deployment say, read as the programs that use them do."""

import configparser
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import frozen

ROOT = Path(__file__).resolve().parent.parent.parent
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD = ROOT / "deploy/grafana/dashboards/trio_feed.json"
UNIT = ROOT / "deploy/trio-feed.service"
KUBERNETES = ROOT / "deploy/kubernetes/trio-feed.yaml"
COMPOSE = ROOT / "compose.yaml"
CLUSTER_COMPOSE = ROOT / "compose.cluster.yaml"
CLUSTER_KUBERNETES = ROOT / "deploy/kubernetes/cluster.yaml"


@frozen
class Rule:
    """``alert`` or, for the others, ``record``."""

    name: str
    expr: str
    recorded: bool


@frozen
class Use:
    """A metric in a query, with the labels that are asked of it."""

    metric: str
    labels: frozenset[str]


def rules() -> list[Rule]:
    import yaml

    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [
        Rule(each.get("alert") or each["record"], each["expr"], "record" in each)
        for group in groups
        for each in group["rules"]
    ]


def dashboard_queries() -> list[str]:
    board: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    found += [each["expr"] for each in board["annotations"]["list"]]
    for variable in board["templating"]["list"]:
        asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
        assert asked is not None
        metric, label = asked.groups()
        found.append(f'{metric}{{{label}="x"}}')
    return found


_METRIC = re.compile(r"(?<![\w:.$])((?:trio_feed|process)[\w:]*|up)(\{[^}]*\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
_GROUPED = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


def uses(query: str) -> Iterator[Use]:
    """Every metric of a query, with the labels that it is filtered by, and by which the query
    groups."""
    words = {w.strip() for group in _GROUPED.findall(query) for w in group.split(",")}
    for metric, matchers in _METRIC.findall(_GROUPED.sub("", query)):
        yield Use(metric, frozenset({*_MATCHER.findall(matchers), *words}))


def unit() -> dict[str, dict[str, list[str]]]:
    """Sections of the systemd unit; a key may stand there several times."""

    class Multi(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None:
            if key in self and isinstance(value, list):
                self[key].extend(value)
            else:
                super().__setitem__(key, value)

    parser = configparser.RawConfigParser(dict_type=Multi, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT, encoding="utf-8")
    return {
        section: {
            key: value.split("\n") if isinstance(value, str) else list(value)
            for key, value in parser.items(section)
        }
        for section in parser.sections()
    }


@frozen
class Step:
    """An instruction of a Dockerfile, continued lines joined."""

    verb: str
    words: str


def dockerfile() -> list[list[Step]]:
    """By stage."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    stages: list[list[Step]] = []
    for line in lines.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        verb, _, words = line.strip().partition(" ")
        if verb == "FROM":
            stages.append([])
        stages[-1].append(Step(verb, " ".join(words.split())))
    return stages
