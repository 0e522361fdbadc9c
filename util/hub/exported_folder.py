"""The folder that `python -m util.checkpoint export` writes for timm and the Hugging Face hub, and our programs read as
a run.

config.json          what timm reads (architecture, model_args, pretrained_cfg) and, under OURS, what our programs read
model.safetensors    weights; of a fine-tuned run those of one fold
README.md            the model card
results.json         of a fine-tuned run: scores, nothing about single subjects
fold_N/              of a fine-tuned run: config.json and model.safetensors of each fold, and its decision.json
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
OF_A_FOLD = (CONFIG, WEIGHTS, DECISION)
# All that is ever published.
FILES = (
    CONFIG,
    WEIGHTS,
    CARD,
    RESULTS,
    *(f"{FOLD_FOLDERS}/{name}" for name in OF_A_FOLD),
)
AGAIN = "download it again, or write it again with `python -m util.checkpoint export`"


def is_exported(folder: Path) -> bool:
    """Whether the folder says that it is such a one."""
    path = folder / CONFIG
    if not path.is_file():
        return False
    try:
        return OURS in json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError):
        return False


def read_form(folder: Path) -> dict[str, Any]:
    """The config.json of an exported folder. ValueError names the file that is missing or wrong, and the fix."""
    path = folder / CONFIG
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: name one that was exported, or hf-hub:user/name")
    if not path.is_file():
        raise ValueError(f"{path} is missing, so {folder} is no exported model: {AGAIN}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): {AGAIN}") from error
    needed = ("architecture", "model_args", OURS)
    if not isinstance(content, dict) or not all(name in content for name in needed):
        known = content.get("architecture") if isinstance(content, dict) else None
        what = f"describes the model {known} of another program" if known else "describes no model that was exported"
        raise ValueError(f"{path} {what}: export a run or checkpoint with `python -m util.checkpoint export`")
    return content


def as_run(content: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json would say in the run that the folder was exported from, as far as it is known."""
    model = {"name": content["architecture"], "fields": content["model_args"]}
    return {**content[OURS], "model": model}


def weights_of(folder: Path) -> Path:
    """The weights of an exported folder. ValueError where they, or its config.json, are missing."""
    read_form(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise ValueError(f"{path} is missing: {AGAIN}")
    return path


def check_digest(weights: Path) -> None:
    """ValueError where weights lie in an exported folder and are not those that it was written with."""
    if weights.name != WEIGHTS or not is_exported(weights.parent):
        return
    wanted = read_form(weights.parent)[OURS].get(DIGEST)
    if wanted is not None and digest_of(weights) != wanted:
        raise ValueError(f"{weights} is damaged, or of another export than {weights.parent / CONFIG}: {AGAIN}")


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_of(folder: Path) -> Iterator[Path]:
    """What there is of FILES in an exported folder."""
    for pattern in FILES:
        yield from sorted(folder.glob(pattern))
