"""Write one offline HTML report of a pre-training run, a fine-tuning run, or both.

python vis/report.py                                        the newest fine-tuning run and where it started from
python vis/report.py --pretrain runs/pretrain --finetune runs/finetune --out report.html
"""

import argparse
import logging
import os
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a script, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from util import cli
from util.files.atomic import atomic_write
from vis.reporting.examples import Example, map_examples, reconstruction_examples
from vis.reporting.facts import find_runs, finetune_facts, pretrain_facts
from vis.reporting.map_checks import truth_section
from vis.reporting.sections import drawn, finetune_section, phantom_text, pretrain_section, tiles

logger = logging.getLogger(__name__)
TEMPLATES = Path(__file__).resolve().parent / "reporting" / "templates"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(description="One offline HTML file about a pre-training and a fine-tuning run.")
    parser.add_argument("--pretrain", type=Path, metavar="RUN", help="default: where the fine-tuning run started from")
    parser.add_argument("--finetune", type=Path, metavar="RUN", help="default: the newest, unless --pretrain is given")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: report.html in the run folder")
    parser.add_argument("--examples", type=int, default=2, metavar="N", help="subjects shown per section, 0 for none")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser.parse_args(argv)


def attempt(draw: Callable[[], Sequence[Example]]) -> dict[str, Any]:
    """Example pictures, or the reason why there are none: a report is worth having when the data are elsewhere."""
    try:
        return {"examples": [{"drawn": drawn(e.figure), "caption": e.caption} for e in draw()], "problem": ""}
    except ValueError as error:
        logger.warning("no example pictures: %s", error)
        return {"examples": [], "problem": str(error)}


def write_report(
    pretrain: Path | None, finetune: Path | None, out: Path, *, examples: int = 2, device: str = "auto"
) -> None:
    """Write the report of one or both runs to `out`, whole or not at all. ValueError names a folder that is no run."""
    if examples < 0:
        raise ValueError(f"--examples {examples}: give 0 for none, or more")
    pretrained = pretrain_facts(pretrain) if pretrain is not None else None
    finetuned = finetune_facts(finetune) if finetune is not None else None
    context: dict[str, Any] = {"pretrain": None, "finetune": None, "truth": None}
    if pretrain is not None and pretrained is not None:
        pictures = attempt(lambda: reconstruction_examples(pretrain, finetune, examples, device) if examples else [])
        context["pretrain"] = pretrain_section(pretrained, pictures)
    if finetune is not None and finetuned is not None:
        pictures = attempt(lambda: map_examples(finetune, examples, device) if examples else [])
        context["finetune"] = finetune_section(finetuned, pictures)
        context["truth"] = truth_section(finetune)
    machine = f"{platform.machine()} {platform.system()}, {os.cpu_count()} CPU cores"
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    html = environment.get_template("report.html").render(
        title="3D Mamba MAE report",
        written=f"{datetime.now().astimezone():%d %B %Y, %H:%M %Z}",
        phantom=phantom_text(pretrained, finetuned),
        tiles=tiles(pretrained, finetuned),
        report_details=[("Command", shlex.join(sys.argv)), ("Machine", machine)],
        **context,
    )
    with atomic_write(out, "w") as file:
        file.write(html)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    cli.setup_logging()
    pretrain, finetune = find_runs(args.pretrain, args.finetune)
    out = args.out or (finetune or pretrain or Path()) / "report.html"
    write_report(pretrain, finetune, out, examples=args.examples, device=args.device)
    logger.info("report: %s (%.1f MB)", out, out.stat().st_size / 1e6)


if __name__ == "__main__":
    cli.run(main)
