"""What documents refer to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: str(each.relative_to(ROOT)))
def test_what_it_refers_to_is_there(document: Path) -> None:
    found = LINK.findall(document.read_text(encoding="utf-8"))
    wanted = [link for link in found if not link.startswith(("http://", "https://", "mailto:"))]
    assert [link for link in wanted if not (document.parent / link).exists()] == []
