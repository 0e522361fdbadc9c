"""Links of the documentation lead somewhere, and so do the names of files in comments, docstrings and texts."""

import ast
import importlib
import io
import re
import subprocess
import tokenize

import pytest

from tests.helpers.pages import PAGES, ROOT, anchors, links, name_of, prose

PLACES = ("ops/", "models/", "util/", "vis/", "tests/", "benchmarks/", "docs/", "recipes/", "assets/")
# A source file in one of our folders, or any Markdown file; #heading may follow.
NAMED = re.compile(rf"(?<![\w/.-])((?:{'|'.join(PLACES)})[\w./-]*\.(?:py|cpp|h|toml)|[\w/-]+\.md)\b(?:#([\w-]+))?")
NOT_OURS = {"tests/ops/test_selective_scan.py": "mamba_ssm's test, which tests/verification runs"}


def tracked():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / line for line in listed.splitlines()]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page):
    broken = []
    for link in links(page):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or not target.is_relative_to(ROOT) or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_page_has_one_title(page):
    assert len(re.findall(r"^# ", prose(page), re.MULTILINE)) == 1


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("nav:")[1]
    listed = re.findall(r"[\w-]+\.md", navigation)
    assert sorted(listed) == sorted(page.name for page in PAGES[1:])


def words_of(path):
    """Docstrings and comments of a source file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return "\n".join(re.findall(r"//.*", text))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    found = [token.string for token in tokens if token.type == tokenize.COMMENT]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found.append(node.value.value)
    return "\n".join(found)


def test_files_named_in_docstrings_and_comments_exist():
    """`docs/method.md#masks` names a file and a heading of it."""
    lacking = []
    for path in tracked():
        if path.suffix not in (".py", ".cpp", ".h") or not path.exists() or not NAMED.search(path.read_text("utf-8")):
            continue
        for name, anchor in NAMED.findall(words_of(path)):
            if name not in NOT_OURS and (
                not (ROOT / name).is_file() or (anchor and anchor not in anchors(ROOT / name))
            ):
                lacking.append(f"{name_of(path)}: {name}{'#' * bool(anchor)}{anchor}")
    assert not lacking


def test_the_python_interface_names_what_exists():
    """`::: a.b.name` in docs/reference.md: mkdocs fails for others, and it is not installed where the tests run."""
    names = re.findall(r"^::: ([\w.]+)$", (ROOT / "docs" / "reference.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert names
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name
