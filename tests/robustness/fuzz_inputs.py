"""Damaged and malicious files for every reader: hypothesis draws changes of valid files."""

import argparse
import csv
import functools
import gzip
import io
import json
import struct
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel
import numpy as np
import openpyxl
import safetensors.torch
import torch
from hypothesis import strategies as st

from tests.helpers.raw_studies import AFFINE, brain_volume
from util.checkpoint.inspection import inspect_checkpoint
from util.config import read_base_path
from util.data.folder import open_volume, read_volume
from util.data.labels import read_labels
from util.data.manifest import FIELDS, PLAIN, ManifestRow, read_manifest
from util.data.raw.nifti import read_image, read_mask

File = tuple[str, bytes]  # name and content
VOLUME_SIZE = (6, 4, 5)
EXTREMES = [
    struct.pack(f"<{kind}", value)
    for kind, values in {
        "b": (-1, 0, 1, 127, -128), "h": (-1, 0, 3, 32767, -32768), "i": (-1, 348, 540, 2**31 - 1, -(2**31)),
        "q": (-1, 2**63 - 1, 2**40), "f": (0, -1, 1e-40, 1e38, float("nan"), float("inf"), float("-inf")),
    }.items()
    for value in values
]  # fmt: skip
WORDS = [
    "=1+1", "../..", "\0", "\n", "\r", '"', "'", "<!DOCTYPE x>", "&amp;", "&x;", "<", "/>", "[", "]", "{", "}", "%",
    "%(x)s", "${HOME}", "~", "~nobody", "/", "-1", "-0", "1e999", "nan", "NaN", "Infinity", "9" * 400, "é", "\u202e",
    "\ud800", "null", "true", "[]", "{}", "A1", "ZZZ9", "XFD1048576", "1048577", "=", ";", "#", ":", ",",
    "\ufeff", "[" * 2000,
]  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A reader and its files. read: takes the path of a file; it may raise only a ValueError that names the file."""

    name: str
    files: st.SearchStrategy[File]
    read: Callable[[Path], object]


@st.composite
def damaged(draw: st.DrawFn, content: bytes, within: int | None = None) -> bytes:
    """Up to eight changes within the first `within` bytes."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(0, 8))):
        start = draw(st.integers(0, min(within or len(changed), len(changed))))
        match draw(st.sampled_from(["put", "cut", "insert", "random", "repeat"])):
            case "put":
                extreme = draw(st.sampled_from(EXTREMES))
                changed[start : start + len(extreme)] = extreme
            case "cut":
                del changed[start : start + draw(st.sampled_from([1, 4, 100, 10**9]))]
            case "insert":
                changed[start:start] = draw(st.sampled_from(WORDS)).encode("utf-8", "surrogatepass")
            case "random":
                some = draw(st.binary(max_size=8))
                changed[start : start + len(some)] = some
            case "repeat":
                changed[start:start] = changed[start : start + 200] * draw(st.integers(1, 5))
    return bytes(changed)


@st.composite
def nifti_files(draw: st.DrawFn) -> File:
    kind = draw(st.sampled_from([nibabel.Nifti1Image, nibabel.Nifti2Image]))
    image = kind(brain_volume()[6:12, 6:11, 6:10] % 200, AFFINE)
    content = draw(damaged(image.to_bytes(), within=kind.header_class.sizeof_hdr + 8))
    compressed = draw(st.sampled_from(["", "inside", "outside"]))
    if compressed == "inside":  # the damage is inside the compressed data
        content = gzip.compress(content, 1)
    elif compressed == "outside":
        content = draw(damaged(gzip.compress(content, 1)))
    return "a.nii.gz" if compressed else "a.nii", content


@st.composite
def label_sheets(draw: st.DrawFn) -> File:
    parts = dict(_sheet_parts())
    for name in draw(st.lists(st.sampled_from(sorted(parts)), max_size=3, unique=True)):
        if draw(st.integers(0, 9)) == 0:
            del parts[name]
        else:
            parts[name] = draw(damaged(parts[name]))
    if draw(st.booleans()):  # text in place of a number or a name
        text = draw(st.one_of(st.sampled_from(WORDS), st.text(max_size=20))).encode("utf-8", "ignore")
        sheet = "xl/worksheets/sheet1.xml"
        parts[sheet] = parts.get(sheet, b"").replace(draw(st.sampled_from([b"sub-1", b"IDH", b"B2", b"<v>1"])), text)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    content = buffer.getvalue()
    return "labels.xlsx", draw(damaged(content)) if draw(st.integers(0, 3)) == 0 else content


_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(WORDS)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)


@st.composite
def manifests(draw: st.DrawFn) -> File:
    cells = _manifest_cells()
    for field in draw(st.lists(st.sampled_from(FIELDS), max_size=3, unique=True)):
        words = st.one_of(st.sampled_from(WORDS), st.text(max_size=20))
        cells[field] = draw(words if field in PLAIN else st.one_of(words, _json.map(json.dumps)))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, FIELDS)
    writer.writeheader()
    for _ in range(draw(st.integers(1, 2))):
        writer.writerow(cells)
    content = buffer.getvalue().encode("utf-8", "surrogatepass")
    return "manifest.csv", draw(damaged(content)) if draw(st.booleans()) else content


@st.composite
def ini_files(draw: st.DrawFn) -> File:
    names = st.sampled_from([*WORDS, "BASE_PATH", "TEST_BASE_PATH", "base_path", "brats_160", "DEFAULT"])
    lines = ["[brats_160]", "BASE_PATH = ."]
    for _ in range(draw(st.integers(0, 4))):
        key, value = draw(names), draw(st.one_of(names, st.text(max_size=30)))
        line = draw(st.sampled_from([f"[{value}]", f"{key} = {value}", f"{key}: {value}", f"  {value}", value]))
        lines.insert(draw(st.integers(0, len(lines))), line)
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    return "config.ini", draw(damaged(content)) if draw(st.booleans()) else content


@st.composite
def checkpoints(draw: st.DrawFn) -> File:
    if draw(st.integers(0, 2)) == 0:
        content = _safetensors_bytes()
        return "a.safetensors", draw(damaged(content, within=draw(st.sampled_from([16, len(content)]))))
    parts = dict(_checkpoint_parts())
    pickled = next(name for name in parts if name.endswith("data.pkl"))
    parts[pickled] = draw(damaged(parts[pickled]))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    content = buffer.getvalue()
    return "a.pth", draw(damaged(content)) if draw(st.integers(0, 2)) == 0 else content


@st.composite
def volumes(draw: st.DrawFn) -> File:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(np.ones(VOLUME_SIZE, np.uint8), order=draw(st.sampled_from(["C", "F"]))))
    content = buffer.getvalue()
    if draw(st.booleans()):
        number = draw(st.sampled_from([b"0", b"-1", b"7", str(2**62).encode(), b"9" * 30, b"1e3", b"'x'", b"None"]))
        content = content.replace(draw(st.sampled_from([b"6", b"|u1", b"False", b"True", b"shape"])), number, 1)
    return "A_t1.npy", draw(damaged(content, within=draw(st.sampled_from([12, 128, len(content)]))))


@functools.cache
def _sheet_parts() -> dict[str, bytes]:
    workbook = openpyxl.Workbook()
    for row in (["Subject", "IDH", "1p19q", "Grade"], ["sub-1", 1, 0, 4], [1001, "0", -1, 2.0], ["sub-3", -1, 1, 3]):
        workbook.worksheets[0].append(row)
    return _parts(workbook.save)


@functools.cache
def _checkpoint_parts() -> dict[str, bytes]:
    content = {**_checkpoint(), "args": argparse.Namespace(model="mae_3d_vim_small_patch16", input_size=160)}
    return _parts(lambda file: torch.save(content, file))


@functools.cache
def _safetensors_bytes() -> bytes:
    content = _checkpoint()
    rest = {name: value for name, value in content.items() if name != "model"}
    return safetensors.torch.save(content["model"], {"format": "pt", "mamba_mae_3d": json.dumps(rest)})


def _checkpoint() -> dict:
    shapes = {
        "patch_embed.proj.weight": (4, 4, 2, 2, 2), "pos_embed": (1, 8, 4), "decoder_pos_embed": (1, 9, 4),
        "blocks.0.mixer.A_log": (8, 2), "blocks.0.mixer.x_proj_b.weight": (5, 8), "mask_token": (1, 1, 4),
        "decoder_embed.weight": (4, 4), "decoder_pred.weight": (32, 4), "head.weight": (2, 4),
    }  # fmt: skip
    config = {"model": {"name": "mae_3d_vim_tiny_patch8", "fields": {"img_size": [4, 4, 4], "fidelity": "paper"}}}
    return {"model": {name: torch.zeros(shape) for name, shape in shapes.items()}, "epoch": 3, "config": config}


def _parts(save: Callable[[io.BytesIO], object]) -> dict[str, bytes]:
    """The parts of the zip archive written by `save`."""
    buffer = io.BytesIO()
    save(buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _manifest_cells() -> dict[str, str]:
    row = ManifestRow(
        subject="sub-1", sources={"t1": "/raw/t1.nii.gz"}, original_shape=[6, 5, 4], original_affine=AFFINE.tolist(),
        orientation="LPS", crop=[[0, 6], [1, 5], [0, 4]], affine=np.eye(4).tolist(), window={"t1": [0.0, 9.5]},
        contrasts=["t1"], checksum={"t1/sub-1_t1.npy": "0f"}, warnings=[], settings={"size": [8, 8, 8]},
    )  # fmt: skip
    return {name: value if name in PLAIN else json.dumps(value) for name, value in asdict(row).items()}


def _read_volume(path: Path) -> None:
    open_volume(path)
    read_volume(path, VOLUME_SIZE)


def _read_images(path: Path) -> None:
    read_mask(path)
    read_image(path)


TARGETS = [
    Target("manifest", manifests(), lambda path: read_manifest(path.parent)),
    Target("label sheet", label_sheets(), lambda path: read_labels(path, "IDH")),
    Target("config.ini", ini_files(), read_base_path),
    Target("NIfTI", nifti_files(), _read_images),
    Target("checkpoint inspect", checkpoints(), inspect_checkpoint),
    Target("prepared volume", volumes(), _read_volume),
]


def outcome(target: Target, file: File) -> str:
    """The text "read", or "refused" for a ValueError that names the file. Any other error is raised."""
    name, content = file
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            target.read(path)
        except ValueError as error:
            if name not in str(error):
                raise AssertionError(f"{target.name}: the message names no file: {error}") from error
            return "refused"
    return "read"
