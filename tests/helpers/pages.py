"""The documentation as text: its pages, what stands in their code blocks, and where their links lead."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!\\)\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """What stands in the page's code blocks of this language."""
    return [body for found, body in FENCE.findall(text_of(page)) if found == language]


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return FENCE.sub("", text_of(page))


def links(page: Path) -> list[str]:
    """Targets of the links in the page's text, inline code left out."""
    return LINK.findall(re.sub(r"`[^`\n]*`(?!\]\()", "", prose(page)))


def anchors(page: Path) -> set[str]:
    """What a link can name in the page after #: its headings, as GitHub spells them."""
    found: set[str] = set()
    for title in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", words).replace(" ", "-"))
    return found


def commands(page: Path) -> list[str]:
    """The command lines of the page's shell blocks: continued lines joined, comments left out, scripts as one."""
    found: list[str] = []
    for body in blocks(page, "bash"):
        if body.startswith("#!"):
            found.append(body)
            continue
        for line in body.replace("\\\n", " ").splitlines():
            if command := re.sub(r"(^|\s)#.*$", "", line).strip():
                found.append(command)
    return found
