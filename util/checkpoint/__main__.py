"""The command `python -m util.checkpoint`: say what a checkpoint holds, convert it between formats, or export its model
to other programs."""

import argparse
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from util import cli
from util.checkpoint.facts import (
    FIDELITIES,
    OUR_CONFIG,
    Known,
    fidelity_of,
    image_size,
    kind_of,
    position_rows,
    registry_name,
    shape_fields,
    source_grid,
)
from util.checkpoint.files import (
    PICKLES,
    SAFETENSORS,
    Content,
    checkpoint_file,
    read_checkpoint,
    save_checkpoint,
    save_safetensors,
)
from util.checkpoint.loading import LoadReport
from util.hub.download import push

logger = logging.getLogger(__name__)
KEPT = ("model", "epoch", "config", "args")  # what loading needs; the state of a training is not converted
LEFT_OUT = {  # what a model leaves out of any checkpoint (docs/method.md#loading-weights)
    "classifier": re.compile(r"^((decoder_)?rope\.|decoder_|mask_token$|cls_token$)"),
    "autoencoder": re.compile(r"^((decoder_)?rope\.|cls_token$|head\.)"),
}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m util.checkpoint", description="Look into checkpoints, convert or export them.")
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser("inspect", help="what a checkpoint holds; no model is built")
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
        sys.stdout.write("\n".join(describe(args.file)) + "\n")
    elif args.command == "export":
        from util.export.command import export  # builds models, which the other commands need not wait for

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


def describe(path: Path) -> list[str]:
    """What a checkpoint holds, in lines."""
    path = checkpoint_file(path)
    content = read_checkpoint(path)
    state = content["model"]
    types = Counter(str(value.dtype).removeprefix("torch.") for value in state.values())
    size, name, fidelity = image_size(content), registry_name(content), fidelity_of(content)
    rows = [
        ("format", f"{'safetensors' if path.suffix == SAFETENSORS else 'torch'}: {', '.join(content)}"),
        (
            "weights",
            f"{len(state)} tensors, {sum(value.numel() for value in state.values()):,} values, buffers included",
        ),
        ("dtype", ", ".join(f"{dtype} ({count})" for dtype, count in types.most_common())),
        ("kind", kind_of(state)),
        ("fields", ", ".join(f"{field}={value}" for field, value in shape_fields(state).items()) or "none recognised"),
        ("img_size", _known(size)),
        ("grid", _grid(content)),
        ("epoch", str(content.get("epoch", "not recorded"))),
        ("name", _known(name)),
        ("fidelity", _known(fidelity)),
    ]
    lines = [f"{title:<10}{text}" for title, text in [("file", str(path)), *rows]]
    lines.append("load_pretrained into")
    for target in LEFT_OUT:
        for wanted in FIDELITIES:
            lines.append(f"  {target}, --fidelity {wanted}: {_forecast(content, target, wanted)}")
    return lines


def expected_report(content: Content, target: str, fidelity: str) -> LoadReport:
    """What load_pretrained reports for a model of the checkpoint's own name, size and classes. target: "classifier" or
    "autoencoder". Raises ValueError where it refuses."""
    state = content["model"]
    found, how = fidelity_of(content)
    if how == OUR_CONFIG and found != fidelity:
        raise ValueError(f"refused, it was trained with fidelity={found}: pass --fidelity {found}")
    if "patch_embed.proj.weight" not in state:
        raise ValueError("refused, it is no model of this project")
    if target == "autoencoder" and kind_of(state) != "masked autoencoder":
        raise ValueError("refused, it is no masked autoencoder")
    report = LoadReport(ignored=[key for key in state if LEFT_OUT[target].match(key)])
    if target == "classifier":
        report.missing = [key for key in ("head.weight", "head.bias") if key not in state]
    elif fidelity == "corrected" and (position_rows(state, "decoder_pos_embed") or 0) > (position_rows(state) or 0):
        report.resized = ["decoder_pos_embed: class-slot row dropped"]
    return report


def _forecast(content: Content, target: str, fidelity: str) -> str:
    try:
        report = expected_report(content, target, fidelity)
    except ValueError as refusal:
        return str(refusal)
    parts = [f"starting fresh: {', '.join(report.missing)}"] if report.missing else ["whole"]
    if report.ignored:
        parts.append(f"ignored: {len(report.ignored)} keys ({', '.join(_families(report.ignored))})")
    return "; ".join([*parts, *report.resized])


def _families(keys: Iterable[str]) -> list[str]:
    """Keys by what stands before the first dot, in order, each once."""
    return list(dict.fromkeys(key.split(".")[0] for key in keys))


def _grid(content: Content) -> str:
    grid = source_grid(content)
    if grid is not None:
        return f"{' x '.join(map(str, grid))} tokens (z, y, x)"
    return f"{position_rows(content['model']) or 'unknown'} tokens, how they lie is not recorded"


def _known(known: Known) -> str:
    return known.how if known.value is None else f"{known.value} ({known.how})"


if __name__ == "__main__":
    cli.run(main)
