"""The command `python -m util.checkpoint`: inspect a checkpoint, convert it, export its model, push it to the hub."""

import argparse
import logging
import sys
from pathlib import Path

from util import cli, ranges
from util.checkpoint.files import PICKLES, SAFETENSORS, read_checkpoint, save_checkpoint, save_safetensors
from util.hub.download import push

logger = logging.getLogger(__name__)
CONVERTED = ("model", "epoch", "config", "args")  # what loading needs; the state of a training is not converted


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m util.checkpoint", description="Inspect, convert, export or push checkpoints.")
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser("inspect", help="what a checkpoint holds, and what loads into which model")
    inspect.add_argument("file", type=Path, metavar="FILE", help=".pth or .safetensors")
    convert = commands.add_parser("convert", help="convert .pth, ours or a published one, to .safetensors, or back")
    convert.add_argument("source", type=Path, metavar="IN", help="the checkpoint to read")
    convert.add_argument("destination", type=Path, metavar="OUT", help="the suffix selects the format")
    convert.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    export = commands.add_parser("export", help="write a trained model in a format that other programs load")
    export.add_argument("source", type=Path, metavar="RUN", help="run folder or checkpoint of this project")
    export.add_argument(
        "destination",
        type=Path,
        metavar="OUT",
        help="the suffix selects the format: .onnx, .pt2 (torch.export), or none for a folder for timm and the hub",
    )
    export.add_argument("--fold", type=ranges.count, help="fold of a fine-tuning run to export")
    export.add_argument("--license", help='licence of the weights, as the hub writes it; default "unknown"')
    export.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    push = commands.add_parser("push", help="upload an exported folder to the Hugging Face hub; needs `hf auth login`")
    push.add_argument("folder", type=Path, metavar="FOLDER", help="exported folder")
    push.add_argument("repository", metavar="USER/NAME", help="model on the hub; created if it is missing")
    push.add_argument("--private", action="store_true", help="create a private repository")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    cli.setup_logging()
    if args.command == "inspect":
        from util.checkpoint.inspection import inspect_checkpoint  # imports models, which the others need not wait for

        sys.stdout.write("\n".join(inspect_checkpoint(args.file)) + "\n")
    elif args.command == "export":
        from util.export.command import export  # imports models

        export(args.source, args.destination, fold=args.fold, license=args.license, overwrite=args.overwrite)
    elif args.command == "push":
        logger.info("pushed: %s", push(args.folder, args.repository, private=args.private))
    else:
        convert_checkpoint(args.source, args.destination, overwrite=args.overwrite)


def convert_checkpoint(source: Path, destination: Path, *, overwrite: bool = False) -> None:
    """Write the weights and the recorded config of `source` to `destination`, in the format of its suffix.

    The state that only a resumed training needs (optimiser, scaler, raw weights beside an average) is left out, and the
    log says so. Raises ValueError for an unknown format, two files of one format, and a destination that exists.
    """
    for path in (source, destination):
        if path.suffix not in (SAFETENSORS, *PICKLES):
            raise ValueError(f"{path}: give names that end in {SAFETENSORS} or {' or '.join(PICKLES)}")
    if (source.suffix == SAFETENSORS) == (destination.suffix == SAFETENSORS):
        raise ValueError(f"IN {source} and OUT {destination} are of the same format: one of them must be {SAFETENSORS}")
    if destination.exists() and not overwrite:
        raise ValueError(f"OUT {destination} exists: choose another name, or replace it with --overwrite")
    content = read_checkpoint(source)
    converted = {name: content[name] for name in CONVERTED if name in content}
    (save_safetensors if destination.suffix == SAFETENSORS else save_checkpoint)(destination, converted)
    if left_out := sorted(content.keys() - converted.keys()):
        logger.info("left out: %s; a training resumes from %s only", ", ".join(left_out), source)
    logger.info("wrote %s", destination)


if __name__ == "__main__":
    cli.run(main)
