"""Pages that speak of the code, held against it."""

import re
import sys

from cli import ROOT

sys.path.insert(0, str(ROOT / "runs"))
import how_it_works


def test_the_walk_through_the_code_points_at_the_code():
    """A link to the line where something was a month ago. `python runs/how_it_works.py --links` mends it."""
    page = how_it_works.PAGE.read_text(encoding="utf-8")
    assert len(how_it_works.LINK.findall(page)) > 15 and how_it_works.linked(page) == page


def test_relative_links_lead_somewhere():
    """A page that was renamed, a picture that was never made."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
