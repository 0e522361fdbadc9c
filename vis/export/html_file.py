"""Writing HTML files from templates."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from util.files.atomic import atomic_write


def write_html(path: Path, template: Path, **values: Any) -> None:
    """Fill in a template and write it to `path`, atomically.

    Values are escaped, so that text such as a subject's name cannot become markup. A missing value is an error.
    """
    environment = Environment(loader=FileSystemLoader(template.parent), autoescape=True, undefined=StrictUndefined)
    html = environment.get_template(template.name).render(**values)
    with atomic_write(path, "w") as file:
        file.write(html)
