"""The pages for people: links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        other = page if not path else (page.parent / path).resolve()
        if not other.exists() or (anchor and anchor not in anchors(other)):
            broken.append(target)
    assert broken == []


def test_both_front_pages_name_the_same_pages_and_show_the_same_code() -> None:
    pages = ROOT / "README.md", ROOT / "docs/README.zh.md"
    texts = [page.read_text(encoding="utf-8") for page in pages]
    named = [
        {(page.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(text)}
        for page, text in zip(pages, texts, strict=True)
    ]
    assert named[0] - {pages[1]} == named[1] - {pages[0]}
    code = [re.findall(r"^```python\n(.*?)^```", text, re.M | re.S) for text in texts]
    assert code[0] == code[1] != []
