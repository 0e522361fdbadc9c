"""Checkpoint files, .pth and .safetensors. They are read without running code and written atomically."""

import argparse
import json
import logging
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from util.files.atomic import atomic_write
from util.files.sealed import check_seal, write_sealed
from util.hub.download import local_path
from util.hub.exported_folder import OURS, check_digest, is_exported, weights_of
from util.run_folder import CHECKPOINTS

logger = logging.getLogger(__name__)
Content = dict[str, Any]  # "model": tensors by name; other keys: "epoch", "config", "args", ...
PICKLES = (".pth", ".pt")
SAFETENSORS = ".safetensors"
METADATA = OURS  # metadata key of a .safetensors file for all but the tensors, as JSON
SEALED = "sealed"  # key of a .pth file that ends in a seal
PREFIXES = ("module.", "_orig_mod.")  # of keys, by DistributedDataParallel and torch.compile
IMPORT_IN_PICKLE = re.compile(r"GLOBAL ([\w.]+)")  # how torch's error names a class that a pickle would import


def save_checkpoint(path: Path, content: Content) -> None:
    """Write a .pth checkpoint atomically, with a checksum (util/files/sealed.py), and read it back."""
    sealed = {**content, SEALED: True}  # so that a file cut off where its seal begins is recognised as damaged
    write_sealed(path, lambda file: torch.save(sealed, file))  # pyright: ignore[reportArgumentType]  # write is enough


def save_safetensors(path: Path, content: Content) -> None:
    """Write content["model"] as .safetensors, and the other keys, plain values and argparse.Namespace, as JSON
    metadata."""
    # safetensors refuses tensors that share memory, as tied weights and views do
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in content["model"].items()}
    rest = {name: value for name, value in content.items() if name != "model"}
    metadata = {"format": "pt", METADATA: json.dumps(rest, default=_as_json)}
    with atomic_write(path) as file:
        file.write(safetensors.torch.save(tensors, metadata))


def read_checkpoint(path: Path | str) -> Content:
    """The content of a checkpoint, on the CPU.

    Only tensors, plain values and argparse.Namespace, which published checkpoints hold, are read. path: a file, an
    exported folder, or hf-hub:user/name[@revision]. Raises ValueError for a file that is missing, damaged or no
    checkpoint, and for a pickle that would import anything else.
    """
    path = checkpoint_file(path)
    check_digest(path)
    is_sealed = check_seal(path)
    content = _read_safetensors(path) if path.suffix == SAFETENSORS else _read_pickle(path, is_sealed=is_sealed)
    if not isinstance(content, dict):
        raise ValueError(f"checkpoint {path} holds a {type(content).__name__}, expected a dictionary with a 'model'")
    if content.pop(SEALED, False) and not is_sealed:
        raise _unreadable(path, "torch checkpoint", ValueError("its checksum is missing"))
    if "model" not in content and isinstance(content.get("state_dict"), dict):
        content = {**content, "model": content["state_dict"]}
        del content["state_dict"]
    weights = content.get("model", content)
    if not (isinstance(weights, dict) and all(isinstance(value, Tensor) for value in weights.values())):
        keys = ", ".join(map(str, list(content)[:5]))
        raise ValueError(
            f"checkpoint {path} holds no weights: expected tensors by name, or a 'model' of such tensors; it has {keys}"
        )
    content = content if "model" in content else {"model": content}
    content["model"] = _without_prefixes(content["model"], path)
    return content


def check_finite(weights: dict[str, Tensor]) -> None:
    """Raise ValueError for weights that are not finite, as a diverged training leaves them."""
    bad = [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(weights)} tensors are not finite, the first is {bad[0]}: its training diverged; "
            "choose an earlier checkpoint"
        )


def checkpoint_file(path: Path | str) -> Path:
    """The file of a checkpoint that is given as a path, an exported folder, or a name on the hub."""
    path = local_path(path)
    if path.is_dir():
        if not is_exported(path) and (kept := sorted(path.glob(CHECKPOINTS))):
            raise ValueError(f"checkpoint {path} is a run folder: give a file in it, such as {kept[-1]}")
        return weights_of(path)
    if not path.is_file():
        raise ValueError(f"checkpoint {path} does not exist")
    return path


def _without_prefixes(weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights under the names that the bare model gives them."""
    for prefix in PREFIXES * 2:  # in either order
        if weights and all(name.startswith(prefix) for name in weights):
            logger.info("%s: the keys' prefix %s is left out", path, prefix)
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _check_archive(path: Path) -> None:
    """Raise ValueError if a part of a zip archive, the form of torch's files, does not match its own CRC-32. A sealed
    file has been checked as a whole; a published one has nothing else."""
    if not zipfile.is_zipfile(path):
        return  # the older form of torch's files, which has no checksum
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            if part.CRC:  # 0 where the writer computed none
                with archive.open(part) as file:
                    while file.read(1 << 20):  # raises BadZipFile at the end
                        pass


def _read_pickle(path: Path, *, is_sealed: bool) -> Any:
    try:
        if not is_sealed:
            _check_archive(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged byte surfaces as nearly any type of exception in torch's unpickler
        if isinstance(error, pickle.UnpicklingError) and (imported := IMPORT_IN_PICKLE.search(str(error))):
            raise ValueError(
                f"checkpoint {path} cannot be read: its pickle would run code ({imported[1]}), which is refused; none "
                "of it was run. Only tensors, plain values and argparse.Namespace are read: ask its author for the "
                "weights alone, preferably as .safetensors"
            ) from error
        raise _unreadable(path, "torch checkpoint", error) from error


def _read_safetensors(path: Path) -> Content:
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            model = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dictionary
    except Exception as error:  # its own error for the header, torch's for types that this version lacks
        raise _unreadable(path, "safetensors file", error) from error
    if METADATA not in metadata:
        return {"model": model}
    try:
        others = json.loads(metadata[METADATA])
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, f"safetensors file with JSON in {METADATA}", error) from error
    if not isinstance(others, dict):
        raise ValueError(
            f"checkpoint {path}: its metadata {METADATA} hold a {type(others).__name__}, expected an object"
        )
    if isinstance(others.get("args"), dict):  # the options of a published checkpoint, see _as_json
        others["args"] = argparse.Namespace(**others["args"])
    return {**others, "model": model}


def _as_json(value: Any) -> Any:
    """A value that JSON lacks: the published options become an object, anything else its text."""
    return vars(value) if isinstance(value, argparse.Namespace) else str(value)


def _unreadable(path: Path, kind: str, error: Exception) -> ValueError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ValueError(f"checkpoint {path} cannot be read: it is truncated, damaged or no {kind} ({reason})")
