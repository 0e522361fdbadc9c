"""The exported folder, which timm and the Hugging Face hub load and our programs read as a run folder.

`python -m util.checkpoint export` writes it:

config.json          for timm (architecture, model_args, pretrained_cfg) and, under the key OURS, for our programs
model.safetensors    weights; those of one fold if the run was fine-tuned
README.md            the model card
results.json         scores of a fine-tuned run; nothing about single subjects
fold_N/              config.json, model.safetensors and decision.json of each fold of a fine-tuned run
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from util.run_folder import CONFIG, DECISION, FOLD_FOLDERS, RESULTS

WEIGHTS, CARD = "model.safetensors", "README.md"
OURS = "mamba_mae_3d"  # the key in config.json, and in the metadata of a .safetensors file
DIGEST = "weights_sha256"
FOLD_FILES = (CONFIG, WEIGHTS, DECISION)
# Nothing else is published.
FILES = (
    CONFIG,
    WEIGHTS,
    CARD,
    RESULTS,
    *(f"{FOLD_FOLDERS}/{name}" for name in FOLD_FILES),
)
EXPORT_AGAIN = "download it again, or write it again with `python -m util.checkpoint export`"


def is_exported(folder: Path) -> bool:
    """Whether the folder is an exported folder, by its config.json."""
    path = folder / CONFIG
    if not path.is_file():
        return False
    try:
        return OURS in json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError):
        return False


def read_exported_config(folder: Path) -> dict[str, Any]:
    """The config.json of an exported folder. Raises ValueError, with the fix, if it is missing or wrong."""
    path = folder / CONFIG
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: name one that was exported, or hf-hub:user/name")
    if not path.is_file():
        raise ValueError(f"{path} is missing, so {folder} is no exported model: {EXPORT_AGAIN}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): {EXPORT_AGAIN}") from error
    needed = ("architecture", "model_args", OURS)
    if not isinstance(content, dict) or not all(name in content for name in needed):
        known = content.get("architecture") if isinstance(content, dict) else None
        problem = f"describes the model {known} of another program" if known else "describes no exported model"
        raise ValueError(f"{path} {problem}: export a run or checkpoint with `python -m util.checkpoint export`")
    return content


def run_config_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of the run that was exported, as far as the exported folder holds it."""
    model = {"name": content["architecture"], "fields": content["model_args"]}
    return {**content[OURS], "model": model}


def weights_of(folder: Path) -> Path:
    """The weights file of an exported folder. Raises ValueError if it or config.json is missing."""
    read_exported_config(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise ValueError(f"{path} is missing: {EXPORT_AGAIN}")
    return path


def check_digest(weights: Path) -> None:
    """Raise ValueError for weights in an exported folder that are not the ones it was written with."""
    if weights.name != WEIGHTS or not is_exported(weights.parent):
        return
    expected = read_exported_config(weights.parent)[OURS].get(DIGEST)
    if expected is not None and digest_of(weights) != expected:
        raise ValueError(f"{weights} is damaged, or of another export than {weights.parent / CONFIG}: {EXPORT_AGAIN}")


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_of(folder: Path) -> Iterator[Path]:
    """The files of an exported folder that match FILES."""
    for pattern in FILES:
        yield from sorted(folder.glob(pattern))
