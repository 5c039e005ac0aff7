"""The pictures of the documentation are what the project's functions draw, and the text quotes what they show."""

from __future__ import annotations

import importlib.util
import re
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
NUMBER = re.compile(r"-?\d+\.?\d*")
SLOW = {"power"}
NUDGE = 0.3  # pixels by which another machine's arithmetic may move a point


def _load():
    spec = importlib.util.spec_from_file_location("doc_figures", DOCS / "figures.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks its own module up
    spec.loader.exec_module(module)
    return module


figures = _load()
NAMES = [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in figures.PICTURES]


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_what_the_functions_draw_and_the_text_quotes_it(name):
    drawing, said = figures.PICTURES[name]()
    there, drawn = (DOCS / "img" / f"{name}.svg").read_text(), drawing.svg()
    assert NUMBER.sub("#", drawn) == NUMBER.sub("#", there), f"draw it again: python docs/figures.py {name}"
    ours, theirs = (np.array(NUMBER.findall(text), float) for text in (drawn, there))
    assert np.allclose(ours, theirs, rtol=0.0, atol=NUDGE), f"draw it again: python docs/figures.py {name}"
    quoted = set(NUMBER.findall((DOCS / "statistics.md").read_text()))
    missing = [number for text in said for number in NUMBER.findall(text) if number not in quoted]
    assert missing == [], "docs/statistics.md quotes other figures than it draws"


def test_every_picture_is_whole_and_shown_on_a_page():
    pages = "".join(page.read_text() for page in DOCS.glob("*.md"))
    files = {file.stem: file for file in (DOCS / "img").glob("*.svg")}
    assert set(files) == set(figures.PICTURES)
    known = set(re.findall(r"--\w+(?=:)", figures.COLOURS))
    for name, file in files.items():
        root = xml.fromstring(file.read_text())
        assert root.get("aria-label"), f"{name} has no words for who cannot see it"
        assert set(re.findall(r"var\((--\w+)\)", file.read_text())) <= known
        assert f"](img/{name}.svg)" in pages, f"{name} is on no page"


def test_nothing_is_drawn_outside_its_sheet():
    for file in (DOCS / "img").glob("*.svg"):
        root = xml.fromstring(file.read_text())
        width, height = float(root.get("width", 0)), float(root.get("height", 0))
        for path in root.iter("{http://www.w3.org/2000/svg}path"):
            if "H" in path.get("d", "") or "v" in path.get("d", ""):
                continue  # bars, and the axes' own
            places = np.array(NUMBER.findall(path.get("d", "")), float).reshape(-1, 2)
            assert (places >= 0).all(), file.name
            assert (places <= [width, height]).all(), file.name
