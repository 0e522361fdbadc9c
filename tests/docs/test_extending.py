"""The patches of docs/extending.md apply to the code, and what they add works."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.helpers.pages import ROOT, text_of

PAGE = ROOT / "docs" / "extending.md"
PARTS = {
    title: (patch, check)
    for title, patch, check in re.findall(
        r"^## ([^\n]+)\n.*?^```diff\n(.*?)^```.*?^```python\n(.*?)^```", text_of(PAGE), re.DOTALL | re.MULTILINE
    )
}
LONGEST = 45  # lines of a patch
CODE = ("ops", "models", "util", "vis", "*.py")
APPLY = ["git", "apply", "-C1"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the code, outside of any git repository."""
    root = tmp_path_factory.mktemp("tree")
    listed = subprocess.run(["git", "ls-files", *CODE], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if (ROOT / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
    return root


def apply(patch, tree, *more):
    return subprocess.run([*APPLY, *more], cwd=tree, input=patch, capture_output=True, text=True, check=False)


def test_the_page_has_the_five_parts():
    assert list(PARTS) == ["A mixer", "An objective", "A map", "A layout", "A metric"]
    assert max(patch.count("\n") for patch, _ in PARTS.values()) <= LONGEST


@pytest.mark.parametrize("title", PARTS)
def test_a_patch_applies_alone(title, tree):
    found = apply(PARTS[title][0], tree, "--check")
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("title", PARTS)
def test_the_check_fails_without_its_patch(title):
    patch, check = PARTS[title]
    with pytest.raises((ValueError, KeyError, ImportError, SystemExit)) as found:
        exec(check, {})
    if isinstance(found.value, ImportError):
        assert any(f"+def {name}(" in patch for name in re.findall(r"'(\w+)'", str(found.value))), found.value


def test_what_is_added_works(tree):
    """All patches together, and all checks in one process of the patched code."""
    for title, (patch, _) in PARTS.items():
        found = apply(patch, tree)
        assert found.returncode == 0, f"{title}: {found.stderr}"
    checks = "\n".join(check for _, check in PARTS.values())
    done = subprocess.run([sys.executable, "-c", checks], cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
