"""HTML files: values are escaped, and a missing value is an error."""

import jinja2
import pytest

from vis.export.html_file import write_html


def test_values_are_escaped_and_the_file_is_whole(tmp_path):
    (tmp_path / "page.html").write_text("<p>{{ name }}</p>")
    write_html(tmp_path / "out" / "a.html", tmp_path / "page.html", name="<b>&")
    assert (tmp_path / "out" / "a.html").read_text() == "<p>&lt;b&gt;&amp;</p>"


def test_a_missing_value_is_an_error_and_leaves_no_file(tmp_path):
    (tmp_path / "page.html").write_text("{{ name }} {{ other }}")
    with pytest.raises(jinja2.UndefinedError, match="other"):
        write_html(tmp_path / "a.html", tmp_path / "page.html", name="x")
    assert not (tmp_path / "a.html").exists()
