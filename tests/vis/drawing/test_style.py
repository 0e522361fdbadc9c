"""Figures look the same everywhere, and are written whole."""

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from vis.drawing.style import panel_page, png_bytes, save_png, styled


def page(**texts):
    text = {"title": "S", "subtitle": "how", "notice": "n", **texts}
    return panel_page(2, 3, panel=1.0, left=0.5, right=0.5, **text)


def test_page_has_its_panels_inside_and_apart():
    figure, axes = page()
    assert [len(line) for line in axes] == [3, 3]
    boxes = [axis.get_position() for line in axes for axis in line]
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)
    assert axes[0][0].get_position().x1 < axes[0][1].get_position().x0
    assert axes[1][0].get_position().y1 < axes[0][0].get_position().y0
    assert png_bytes(figure).startswith(b"\x89PNG")


def test_style_does_not_leak_and_ignores_the_callers():
    @styled
    def family():
        return mpl.rcParams["font.sans-serif"], mpl.rcParams["axes.grid"]

    with mpl.rc_context({"font.sans-serif": ["Nonesuch"], "axes.grid": False}):
        assert family() == (["DejaVu Sans"], True)
        assert mpl.rcParams["font.sans-serif"] == ["Nonesuch"]


@pytest.mark.parametrize("name", ["A_$1^2", r"$\frac{$", "$", "Größe"])
def test_any_name_is_a_title_and_no_formula(name):
    figure, _ = styled(page)(title=name)
    assert png_bytes(figure)


def test_failed_picture_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_png(tmp_path / "a.png", Figure())
    assert list(tmp_path.iterdir()) == []
