"""docs/draw_coverage.py: sums per package, and where they are written."""

import importlib.util
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("draw_coverage", ROOT / "docs" / "draw_coverage.py")
draw_coverage = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(draw_coverage)


def summary(*counts):
    return {"summary": dict(zip(draw_coverage.KEYS, counts))}


REPORT = {
    "meta": {"version": "7.0"},
    "files": {
        "ops/a.py": summary(3, 4, 0, 0),
        "ops/cpu/b.py": summary(6, 8, 1, 2),
        "util/c.py": summary(10, 10, 3, 4),
        "predict.py": summary(0, 3, 0, 4),
    },
}


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(draw_coverage, "FIGURE", tmp_path / "coverage.svg")
    monkeypatch.setattr(draw_coverage, "PAGE", tmp_path / "testing.md")
    draw_coverage.PAGE.write_text(f"before\n{draw_coverage.BEGIN}old\n{draw_coverage.END}\nafter\n")
    (tmp_path / "coverage.json").write_text(json.dumps(REPORT))
    draw_coverage.main(str(tmp_path / "coverage.json"))
    return tmp_path


def test_packages_are_summed(page):
    text = (page / "testing.md").read_text()
    assert "| ops | 2 | 12 | 75.0% | 2 | 50.0% |" in text
    assert "| programs | 1 | 3 | 0.0% | 4 | 0.0% |" in text
    assert "| all | 4 | 25 | 76.0% | 10 | 40.0% |" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text


def test_bars_are_as_wide_as_the_shares(page):
    bars = [
        float(bar.get("width")) / draw_coverage.WIDTH
        for bar in ElementTree.parse(page / "coverage.svg").iter("{http://www.w3.org/2000/svg}rect")
        if bar.get("height") == "16" and bar.get("fill") != "#eeeeee"
    ]
    assert bars[:2] == [0.75, 0.5]
    assert bars[-2:] == [0.76, 0.4]


def test_the_page_has_a_place_for_the_table():
    page = (ROOT / "docs" / "testing.md").read_text()
    assert page.count(draw_coverage.BEGIN) == page.count(draw_coverage.END) == 1
    assert "assets/coverage.svg" in page
