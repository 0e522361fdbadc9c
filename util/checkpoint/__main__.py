"""The command `python -m util.checkpoint`: say what a checkpoint holds, convert it between formats, or export its model
to other programs."""

import argparse
import logging
import sys
from pathlib import Path

from util import cli
from util.checkpoint.files import PICKLES, SAFETENSORS, read_checkpoint, save_checkpoint, save_safetensors
from util.hub.download import push

logger = logging.getLogger(__name__)
KEPT = ("model", "epoch", "config", "args")  # what loading needs; the state of a training is not converted


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m util.checkpoint", description="Look into checkpoints, convert or export them.")
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser("inspect", help="what a checkpoint holds, and what loads into which model")
    inspect.add_argument("file", type=Path, metavar="FILE", help=".pth or .safetensors")
    convert = commands.add_parser("convert", help=".pth, ours or a published one, to .safetensors, or back")
    convert.add_argument("source", type=Path, metavar="IN", help="the checkpoint to read")
    convert.add_argument("destination", type=Path, metavar="OUT", help="its suffix says the format")
    convert.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    export = commands.add_parser("export", help="a trained model in a form that other programs load")
    export.add_argument("source", type=Path, metavar="RUN", help="run folder, or a checkpoint of ours")
    export.add_argument(
        "destination",
        type=Path,
        metavar="OUT",
        help="its suffix says the form: .onnx, .pt2 for torch.export, none for a folder that timm and the hub take",
    )
    export.add_argument("--fold", type=int, help="of a fine-tuning run, whose folds have a model each")
    export.add_argument("--license", help='of the weights in a folder, as the hub writes it; default "unknown"')
    export.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    push = commands.add_parser("push", help="an exported folder to the Hugging Face hub; needs `hf auth login`")
    push.add_argument("folder", type=Path, metavar="FOLDER", help="what export wrote")
    push.add_argument("repository", metavar="USER/NAME", help="on the hub; made if it is missing")
    push.add_argument("--private", action="store_true", help="for those only whom its page names")
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
    """Write the weights of `source` and what it says of its model in the format that the suffix of `destination` says.

    What only a resumed training needs (optimiser, scaler, raw weights beside an average) is left out and named.
    Raises ValueError for an unknown format, two files of the same one, and a destination that exists.
    """
    for path in (source, destination):
        if path.suffix not in (SAFETENSORS, *PICKLES):
            raise ValueError(f"{path}: give names that end in {SAFETENSORS} or {' or '.join(PICKLES)}")
    if (source.suffix == SAFETENSORS) == (destination.suffix == SAFETENSORS):
        raise ValueError(f"IN {source} and OUT {destination} are of the same format: one of them is {SAFETENSORS}")
    if destination.exists() and not overwrite:
        raise ValueError(f"OUT {destination} exists: choose another name, or replace it with --overwrite")
    content = read_checkpoint(source)
    kept = {name: content[name] for name in KEPT if name in content}
    (save_safetensors if destination.suffix == SAFETENSORS else save_checkpoint)(destination, kept)
    if dropped := sorted(content.keys() - kept.keys()):
        logger.info("left out: %s; a training resumes from %s only", ", ".join(dropped), source)
    logger.info("wrote %s", destination)


if __name__ == "__main__":
    cli.run(main)
