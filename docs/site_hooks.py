"""MkDocs hooks: links that leave docs/ lead to copies of the repository's files, so that the site needs no network.

On GitHub a page links to ../models/mae.py as it stands. On the site the file is a copy under repository/; a text file
gets the suffix .txt, so that browsers show it. A link to a folder becomes plain text.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\(\.\./(?P<path>[^)#]+)(?:#[^)]*)?\)")
PICTURES = (".png", ".svg", ".jpg")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a copy of each repository file that a page links to."""
    paths = {
        match["path"]
        for page in files.documentation_pages()
        for match in LINK.finditer(Path(page.abs_src_path or "").read_text(encoding="utf-8"))
    }
    for path in sorted(paths):
        source = ROOT / path
        if not source.exists():
            raise PluginError(f"a page links to ../{path}, which does not exist")
        if source.is_file():
            files.append(File.generated(config, _copy(path), abs_src_path=str(source)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links to repository files to their copies."""

    def place(match: re.Match[str]) -> str:
        if (ROOT / match["path"]).is_dir():
            return match["text"]
        return f"[{match['text']}]({_copy(match['path'])})"

    return LINK.sub(place, markdown)


def _copy(path: str) -> str:
    return f"repository/{path}" if path.endswith(PICTURES) else f"repository/{path}.txt"
