"""Write one offline HTML report of a pre-training run, a fine-tuning run, or both.

python vis/report.py                            the newest fine-tuning run and its pre-training run
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

from util import cli, ranges
from vis.export.html_file import write_html
from vis.options import add_device
from vis.reporting.examples import Example, map_examples, reconstruction_examples
from vis.reporting.facts import find_runs, finetune_facts, pretrain_facts
from vis.reporting.map_checks import map_check_section
from vis.reporting.sections import encoded, finetune_section, phantom_text, pretrain_section, tiles

logger = logging.getLogger(__name__)
TEMPLATE = Path(__file__).resolve().parent / "reporting" / "templates" / "report.html"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(description="Write one offline HTML report of a pre-training run, a fine-tuning run, or both.")
    parser.add_argument("--pretrain", type=Path, metavar="RUN", help="default: the start of the fine-tuning run")
    parser.add_argument("--finetune", type=Path, metavar="RUN", help="default: the newest, unless --pretrain is given")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: report.html in the run folder")
    parser.add_argument(
        "--examples", type=ranges.count, default=2, metavar="N", help="example subjects per section, 0 for none"
    )
    add_device(parser)
    return parser.parse_args(argv)


def examples_or_problem(draw: Callable[[], Sequence[Example]]) -> dict[str, Any]:
    """Example figures, or the reason why there are none. A report without examples does not need the data."""
    try:
        return {"examples": [{"image": encoded(e.figure), "caption": e.caption} for e in draw()], "problem": ""}
    except ValueError as error:
        logger.warning("no example figures: %s", error)
        return {"examples": [], "problem": str(error)}


def write_report(
    pretrain: Path | None, finetune: Path | None, out: Path, *, examples: int = 2, device: str = "auto"
) -> None:
    """Write the report of one or both runs to `out`, atomically. ValueError names a folder that is not a run."""
    if examples < 0:
        raise ValueError(f"--examples {examples}: give 0 for none, or more")
    pretrained = pretrain_facts(pretrain) if pretrain is not None else None
    finetuned = finetune_facts(finetune) if finetune is not None else None
    context: dict[str, Any] = {"pretrain": None, "finetune": None, "map_checks": None}
    if pretrain is not None and pretrained is not None:
        figures = examples_or_problem(
            lambda: reconstruction_examples(pretrain, finetune, examples, device) if examples else []
        )
        context["pretrain"] = pretrain_section(pretrained, figures)
    if finetune is not None and finetuned is not None:
        figures = examples_or_problem(lambda: map_examples(finetune, examples, device) if examples else [])
        context["finetune"] = finetune_section(finetuned, figures)
        context["map_checks"] = map_check_section(finetune)
    machine = f"{platform.machine()} {platform.system()}, {os.cpu_count()} CPU cores"
    write_html(
        out,
        TEMPLATE,
        title="3D Mamba MAE report",
        written=f"{datetime.now().astimezone():%d %B %Y, %H:%M %Z}",
        phantom=phantom_text(pretrained, finetuned),
        tiles=tiles(pretrained, finetuned),
        report_details=[("Command", shlex.join(sys.argv)), ("Machine", machine)],
        **context,
    )


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    cli.setup_logging()
    pretrain, finetune = find_runs(args.pretrain, args.finetune)
    out = args.out or (finetune or pretrain or Path()) / "report.html"
    write_report(pretrain, finetune, out, examples=args.examples, device=args.device)
    logger.info("report: %s (%.1f MB)", out, out.stat().st_size / 1e6)


if __name__ == "__main__":
    cli.run(main)
