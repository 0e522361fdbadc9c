"""docs/environment.md lists the environment variables that the code reads, and no others."""

import ast
import re

from tests.helpers.pages import ROOT, text_of

PAGE = ROOT / "docs" / "environment.md"
FOLDERS = ("ops", "models", "util", "vis", "benchmarks")
FILES = [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
NAME = re.compile(r"[A-Z][A-Z0-9_]+")


def constants(trees):
    """Texts that modules give to names, alone or in tuples: {name: texts}."""
    found = {}
    for tree in trees:
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                texts = [part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)]
                found.setdefault(node.targets[0].id, []).extend(text for text in texts if isinstance(text, str))
    return found


def reads(tree):
    """Expressions of the variables that a module reads: os.environ[X], os.environ.get(X), X in os.environ, getenv."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and is_environ(node.value) and isinstance(node.ctx, ast.Load):
            yield node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of_environ = is_environ(node.func.value) and node.func.attr in ("get", "setdefault", "pop")
            if node.args and (of_environ or node.func.attr == "getenv"):
                yield node.args[0]
        elif isinstance(node, ast.Compare) and any(map(is_environ, node.comparators)):
            yield node.left


def is_environ(node):
    return ast.unparse(node) in ("os.environ", "environ")


def variables(path, known):
    """Names of the variables that a file reads; what a loop runs over stands for what it names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    loops = {
        part.target.id: part.iter for part in ast.walk(tree) if isinstance(part, ast.comprehension | ast.For)
        and isinstance(part.target, ast.Name)
    }  # fmt: skip
    for expression in reads(tree):
        word = ast.unparse(expression)
        expression = loops.get(word, expression)
        texts = [part.value for part in ast.walk(expression) if isinstance(part, ast.Constant)]
        names = texts or known.get(ast.unparse(expression).split(".")[-1], [])
        assert names, f"{path.relative_to(ROOT)}: cannot tell what {word} is"
        yield from names


def read_by_the_code():
    known = constants([ast.parse(path.read_text(encoding="utf-8")) for path in FILES])
    found = {name for path in FILES for name in variables(path, known)}
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "ops").rglob("csrc/*"))
    return found | {name for text in sources for name in re.findall(r'getenv\("(\w+)"\)', text)}


def rows(title):
    """The variables in the first column of a section's table."""
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", text_of(PAGE), re.DOTALL | re.MULTILINE)
    return {
        name for line in section.splitlines() if line.startswith("| `") for name in NAME.findall(line.split("|")[1])
    }


def test_every_variable_is_on_the_page():
    documented = rows("Ours") | rows("Of others, read by our code")
    assert read_by_the_code() == documented


def test_ours_are_those_with_our_name():
    assert all(name.startswith("MAMBA_MAE_") for name in rows("Ours"))
    assert len(rows("Ours")) == 4


def test_a_variable_that_is_read_is_found():
    """Each way of reading."""
    forms = ['os.environ["NEW_A"]', 'os.environ.get(SWITCH, "1")', '"NEW_C" in os.environ', 'os.getenv("NEW_D")',
             "any(name in os.environ for name in BOTH)"]  # fmt: skip
    tree = ast.parse("\n".join(forms))
    found = {ast.unparse(expression) for expression in reads(tree)}
    assert found == {"'NEW_A'", "SWITCH", "'NEW_C'", "'NEW_D'", "name"}


def test_what_the_makefile_sets_is_on_the_page():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    exported = set(re.findall(r"export (\w+)", makefile))
    assert exported
    assert exported <= rows("Worth knowing")
