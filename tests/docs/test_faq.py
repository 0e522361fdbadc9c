"""Messages that docs/faq.md quotes are messages that the programs write."""

import ast
import re

import pytest

from tests.helpers.pages import ROOT, text_of

QUOTED = re.findall(r'^### "(.+?)"$', text_of(ROOT / "docs" / "faq.md"), re.MULTILINE)


FOLDERS = ("ops", "models", "util", "vis")


@pytest.fixture(scope="module")
def texts():
    """Every text of the code; what f-strings fill in is a mark."""
    files = [*ROOT.glob("*.py"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    found = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            found.append("".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values))
    return found


def test_messages_are_quoted():
    assert len(QUOTED) > 6


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_exists(message, texts):
    assert any(message in text for text in texts)
