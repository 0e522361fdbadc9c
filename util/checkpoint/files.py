"""Checkpoint files, .pth and .safetensors: read without running code, written whole or not at all."""

import argparse
import json
import pickle
import re
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from util.files.atomic import atomic_write
from util.files.sealed import check_seal, write_sealed
from util.hub.download import located
from util.hub.exported_folder import OURS, check_digest, is_exported, weights_of
from util.run_folder import CHECKPOINTS

Content = dict[str, Any]  # "model": tensors by name; beside it what the file says: "epoch", "config", "args", ...
PICKLES = (".pth", ".pt")
SAFETENSORS = ".safetensors"
METADATA = OURS  # in a .safetensors file: as JSON, what a .pth file holds beside the tensors
SEALED = "sealed"  # the key that says that the file ends in a seal
ASKED_FOR = re.compile(r"GLOBAL ([\w.]+)")  # how torch names what a pickle wanted to import


def save_checkpoint(path: Path, content: Content) -> None:
    """Write a .pth checkpoint whole or not at all, with a checksum (util/files/sealed.py) and read back."""
    told = {**content, SEALED: True}  # else a file cut off where its seal begins would pass for one without
    write_sealed(path, lambda file: torch.save(told, file))  # pyright: ignore[reportArgumentType]  # write is enough


def save_safetensors(path: Path, content: Content) -> None:
    """Write content["model"] as .safetensors and the rest, plain values and argparse.Namespace, as JSON metadata."""
    # safetensors refuses tensors that share memory, as tied weights and views do
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in content["model"].items()}
    rest = {name: value for name, value in content.items() if name != "model"}
    metadata = {"format": "pt", METADATA: json.dumps(rest, default=_as_json)}
    with atomic_write(path) as file:
        file.write(safetensors.torch.save(tensors, metadata))


def read_checkpoint(path: Path | str) -> Content:
    """The content of a checkpoint on the CPU: tensors, plain values and at most argparse.Namespace, as published ones
    hold. path: a file, an exported folder, or hf-hub:user/name[@revision]. Raises ValueError for a file that is
    missing, damaged, no checkpoint, or whose pickle asks for anything else.
    """
    path = checkpoint_file(path)
    check_digest(path)
    is_sealed = check_seal(path)
    content = _read_safetensors(path) if path.suffix == SAFETENSORS else _read_pickle(path)
    if not isinstance(content, dict):
        raise ValueError(f"checkpoint {path} holds a {type(content).__name__}, expected a dictionary with a 'model'")
    if content.pop(SEALED, False) and not is_sealed:
        raise _unreadable(path, "torch checkpoint", ValueError("its checksum is missing"))
    weights = content.get("model", content)
    if not (isinstance(weights, dict) and all(isinstance(value, Tensor) for value in weights.values())):
        found = ", ".join(map(str, list(content)[:5]))
        raise ValueError(
            f"checkpoint {path} holds no weights: expected tensors by name, or such a 'model'; has {found}"
        )
    return content if "model" in content else {"model": content}


def checkpoint_file(path: Path | str) -> Path:
    """The file on this machine that a checkpoint's path, exported folder or name on the hub stands for."""
    path = located(path)
    if path.is_dir():
        if not is_exported(path) and (kept := sorted(path.glob(CHECKPOINTS))):
            raise ValueError(f"checkpoint {path} is a run folder: name a file in it, such as {kept[-1]}")
        return weights_of(path)
    if not path.is_file():
        raise ValueError(f"checkpoint {path} does not exist")
    return path


def _read_pickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged byte surfaces as nearly any type of exception in torch's unpickler
        if isinstance(error, pickle.UnpicklingError) and (asked := ASKED_FOR.search(str(error))):
            raise ValueError(
                f"checkpoint {path} cannot be read: its pickle asks for {asked[1]}, which is code that we refuse to "
                "run; nothing of it was run. Only tensors, plain values and argparse.Namespace are read: ask its "
                "author for the weights alone, best as .safetensors"
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
        said = json.loads(metadata[METADATA])
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, f"safetensors file with JSON in {METADATA}", error) from error
    if not isinstance(said, dict):
        raise ValueError(f"checkpoint {path}: its metadata {METADATA} hold a {type(said).__name__}, expected an object")
    if isinstance(said.get("args"), dict):  # a published checkpoint's, see _as_json
        said["args"] = argparse.Namespace(**said["args"])
    return {**said, "model": model}


def _as_json(value: Any) -> Any:
    """What JSON does not know: the published options become an object, anything else its text."""
    return vars(value) if isinstance(value, argparse.Namespace) else str(value)


def _unreadable(path: Path, kind: str, error: Exception) -> ValueError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ValueError(f"checkpoint {path} cannot be read: it is truncated, damaged or no {kind} ({reason})")
