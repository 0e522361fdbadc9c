"""Pages that scripts write are what those scripts would write now."""

import importlib
import inspect
import re

import pytest

from tests.helpers.pages import ROOT, text_of
from tests.helpers.programs import OPTIONS, PROGRAMS, script

DRAWING = script("docs/draw_architecture.py")


@pytest.mark.parametrize("program", PROGRAMS)
def test_options_are_those_of_the_parser(program):
    assert OPTIONS.section(program) in text_of(OPTIONS.PAGE), "run python docs/write_options.py"


def test_the_page_of_options_holds_nothing_else():
    assert text_of(OPTIONS.PAGE) == OPTIONS.page(), "run python docs/write_options.py"


def test_an_option_shows_its_values_default_and_help():
    assert "| `--on_save_error` `{stop,continue}` | `stop` | " in OPTIONS.section("main_pretrain.py")
    assert "| `--overwrite` |  | " in OPTIONS.section("main_pretrain.py")
    assert "%(" not in OPTIONS.page()


def test_pictures_are_those_of_the_imports():
    assert text_of(DRAWING.PAGE) == DRAWING.page(text_of(DRAWING.PAGE), DRAWING.pictures()), (
        "run python docs/draw_architecture.py"
    )


def test_a_picture_that_is_not_drawn_is_refused():
    text = text_of(DRAWING.PAGE)
    with pytest.raises(ValueError, match="shows the pictures"):
        DRAWING.page(text.replace("<!-- picture: vis -->", "<!-- picture: view -->"), DRAWING.pictures())


def test_arrows_that_others_imply_are_left_out():
    assert DRAWING.reduced({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}


def test_arrows_of_a_circle_stay():
    assert DRAWING.reduced({"a": {"b"}, "b": {"a"}}) == {"a": {"b"}, "b": {"a"}}


def test_floors_point_down():
    arrows = re.findall(r"n_(\w+) --> n_(\w+)", DRAWING.pictures()["floors"])
    floors = ["ops", "models", "util", "vis", "engines", "programs"]
    assert arrows
    assert all(floors.index(end) < floors.index(start) for start, end in arrows)


def test_a_new_import_moves_an_arrow(monkeypatch):
    """A fault planted: a backend of ops that imports a model."""
    true = DRAWING.imports

    def planted(path, known):
        return true(path, known) | ({"models.config"} if path.name == "portable.py" else set())

    monkeypatch.setattr(DRAWING, "imports", planted)
    assert "n_ops --> n_models" in DRAWING.pictures()["floors"]


def test_names_of_the_python_interface_exist():
    """What mkdocstrings is to document, in the module that defines it, and members of classes."""
    text = text_of(ROOT / "docs" / "reference.md")
    found = re.findall(r"^::: ([\w.]+)(?:\n    options:\n      members: \[([\w, ]+)\])?", text, re.MULTILINE)
    assert len(found) > 10
    for dotted, members in found:
        module, _, name = dotted.rpartition(".")
        thing = getattr(importlib.import_module(module), name)
        assert inspect.getdoc(thing), dotted
        for member in filter(None, members.split(", ")):
            assert member in vars(thing), f"{dotted}.{member}"
