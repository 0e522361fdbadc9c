"""`python -m util.checkpoint export`: write a trained model in a format that other programs load."""

import logging
from pathlib import Path

from util.export.trained import open_trained, trained_folds
from util.runs import read_config

logger = logging.getLogger(__name__)
GRAPHS = {".pt2": "torch.export", ".onnx": "ONNX"}  # by suffix


def export(
    source: Path, destination: Path, *, fold: int | None = None, license: str | None = None, overwrite: bool = False
) -> None:
    """Write the model of `source`, a run folder or a checkpoint file, to `destination`.

    The suffix of `destination` selects the format; without a suffix it is a folder for timm and the hub. Raises
    ValueError with the argument at fault and the fix.
    """
    if destination.suffix not in ("", *GRAPHS):
        known = ", ".join(f"{suffix} ({form})" for suffix, form in GRAPHS.items())
        raise ValueError(f"OUT {destination}: give a name that ends in one of {known}, or in none for a folder")
    if destination.exists() and not overwrite:
        raise ValueError(f"OUT {destination} exists: choose another name, or replace it with --overwrite")
    if destination.suffix:
        _export_graph(source, destination, fold)
    else:
        _export_folder(source, destination, fold, license)
    logger.info("wrote %s", destination)


def _export_folder(source: Path, destination: Path, fold: int | None, license: str | None) -> None:
    from util.export.hub_folder import write_exported_folder

    if source.is_dir() and read_config(source).get("kind") == "finetune":
        models = {number: open_trained(source, number) for number in trained_folds(source)}
        chosen = min(models) if fold is None else fold
        main = models[chosen] if chosen in models else open_trained(source, chosen)  # the latter raises, with the fix
        write_exported_folder(destination, list(models.values()), main, license=license)
    else:
        main = open_trained(source, fold)
        write_exported_folder(destination, [main], main, license=license)


def _export_graph(source: Path, destination: Path, fold: int | None) -> None:
    from util.export.graph_file import write_onnx, write_program

    write = {".pt2": write_program, ".onnx": write_onnx}[destination.suffix]
    write(open_trained(source, fold), destination)
