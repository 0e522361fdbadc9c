"""Open a NIfTI, Analyze 7.5 or MGH file in memory, within the limits of what a scan of a head can hold."""

import io
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import nibabel
from nibabel.analyze import AnalyzeHeader
from nibabel.filebasedimages import ImageFileError
from nibabel.fileholders import FileHolder
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.nifti1 import Nifti1Header
from nibabel.spatialimages import HeaderDataError

SUFFIX = r"\.(nii|img|mgh)(\.gz)?|\.mgz"
"""Regular expression for the end of the name of a file that can be read. An .img is read with its .hdr."""
UNREADABLE = r"\.(nrrd|nhdr|mha|mhd|mnc|dcm|hdr)(\.gz)?"
"""The same for files of images that must be converted first, or an .hdr without .img."""
GZIP_MAGIC = b"\x1f\x8b"
GZIP_FORMAT = 31  # for zlib: a gzip header and its checksum
MAX_VOXELS = 512**3
"""A head at 0.4 mm has fewer voxels. Reading takes up to 32 bytes per voxel (stored float64, a copy, scaled values,
float32), that is 4 GiB for the largest file; int16, which scanners write, takes 12."""
MAX_EXTRA_BYTES = 16 * 2**20
"""Largest size of the extensions before the voxels, and of other content after them."""
CHUNK = 4 * 2**20  # bytes read at once, so that a header with a false size costs no memory
MGH_FIRST_VOXEL = 284  # byte
MGH_GOOD_RAS = slice(28, 30)  # bytes of the flag that says whether the header has an affine
KINDS = (nibabel.Nifti1Image, nibabel.Nifti2Image)
PAIRS = (nibabel.Nifti1Pair, nibabel.Nifti2Pair, nibabel.Spm99AnalyzeImage)


def open_nifti(path: Path) -> Any:
    """The nibabel image of a .nii, .img and .hdr, or .mgh file, compressed or not.

    The file is decompressed to its end, so that its checksum is verified. Bytes after a gzip stream are ignored.

    Raises ValueError, before any voxel is read, unless it holds one 3-D volume of real numbers with at most MAX_VOXELS;
    ImageFileError if it is of another format; EOFError, OSError, zlib.error or HeaderDataError if it is damaged.
    """
    if pair := re.fullmatch(r"(?P<stem>.*)\.(img|hdr)(\.gz)?", path.name, re.I):
        return _open_pair(path, pair["stem"])
    with path.open("rb") as file:
        chunks = _chunks(file)
        start = _first_bytes(chunks, nibabel.Nifti2Image.header_class.sizeof_hdr)
        if re.search(r"\.(mgz|mgh(\.gz)?)$", path.name, re.I):
            if start[:4] != b"\0\0\0\1" or len(start) < MGH_FIRST_VOXEL:
                raise ImageFileError("no MGH header")
            if start[MGH_GOOD_RAS] == b"\0\0":  # nibabel would take a default instead
                raise ValueError(f"{path} has neither voxel size nor orientation (goodRASFlag 0); convert it again")
            return _image(nibabel.MGHImage, start, chunks, path)
        for kind in KINDS:
            if kind.header_class.may_contain_header(start[: kind.header_class.sizeof_hdr]):
                return _image(kind, start, chunks, path)
    raise ImageFileError("no NIfTI header")


def _image(kind: Any, start: bytes, chunks: Iterator[bytes], path: Path) -> Any:
    """An image whose header and voxels are in one file, of which `start` has been read."""
    content = io.BytesIO(start)
    content.seek(0, io.SEEK_END)
    if kind is nibabel.MGHImage:
        header = MGHHeader(start[: MGHHeader.template_dtype.itemsize])
        stated = MGH_FIRST_VOXEL + _voxel_bytes(header, path)
    else:
        header = kind.header_class(start[: kind.header_class.sizeof_hdr])
        size = _voxel_bytes(header, path)
        stated = max(_offset(header, path), header.single_vox_offset) + size
    _read_rest(chunks, content, stated, path)
    content.seek(0)
    try:
        return kind.from_stream(content)
    except (ValueError, OverflowError) as error:  # an invalid rotation, a size that is no number
        raise HeaderDataError(error) from error


def _open_pair(path: Path, stem: str) -> Any:
    """An image whose header is in STEM.hdr and whose voxels are in STEM.img."""
    names = {re.sub(r"\.gz$", "", file.name.lower()): file for file in path.parent.glob(f"{_escaped(stem)}.*")}
    parts = {part: names.get(f"{stem}.{part}".lower()) for part in ("hdr", "img")}
    if parts["hdr"] is None or parts["img"] is None:
        missing = next(part for part, file in parts.items() if file is None)
        raise ValueError(f"{path} has no {stem}.{missing} beside it; an image of two files needs both")
    with parts["hdr"].open("rb") as header_file, parts["img"].open("rb") as voxel_file:
        head = _first_bytes(_chunks(header_file), nibabel.Nifti2Pair.header_class.sizeof_hdr)
        for kind in PAIRS:
            size = kind.header_class.sizeof_hdr
            if not kind.header_class.may_contain_header(head[:size]):
                continue
            header = kind.header_class(head[:size])
            voxels = io.BytesIO()
            _read_rest(_chunks(voxel_file), voxels, _voxel_bytes(header, path) + _offset(header, path), path)
            voxels.seek(0)
            files = {"header": io.BytesIO(head), "image": voxels, "mat": io.BytesIO()}  # SPM's .mat is not read
            try:
                return kind.from_file_map({part: FileHolder(fileobj=file) for part, file in files.items()})
            except (ValueError, OverflowError) as error:
                raise HeaderDataError(error) from error
    raise ImageFileError("no Analyze header")


def _escaped(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def has_orientation(image: Any) -> bool:
    """Whether the header says which way the axes of the volume point.

    A NIfTI file with qform_code and sform_code 0 does not ("method 1"), nor does Analyze 7.5. nibabel would give them
    an affine nevertheless.
    """
    header = image.header
    if isinstance(header, MGHHeader):
        return True
    if isinstance(header, Nifti1Header):
        return int(header["qform_code"]) > 0 or int(header["sform_code"]) > 0
    return False


def _voxel_bytes(header: Any, path: Path) -> int:
    """Bytes of the voxels, as the header states them."""
    stored, shape = header.get_data_dtype(), header.get_data_shape()
    if stored.fields is not None or stored.kind not in "iuf":
        raise ValueError(f"{path} holds colours or complex numbers; a scan has one real number per voxel")
    if len(shape) < 3 or any(side != 1 for side in shape[3:]):
        raise ValueError(f"{path} has {len(shape)} dimensions {shape}; extract one 3-D volume from it")
    if min(shape) < 1 or (voxels := math.prod(int(side) for side in shape)) > MAX_VOXELS:
        raise ValueError(
            f"{path} states {' x '.join(map(str, shape))} voxels, the allowed range is 1 to {MAX_VOXELS:,}; convert it "
            "again, or resample a larger scan"
        )
    return voxels * stored.itemsize


def _offset(header: AnalyzeHeader, path: Path) -> int:
    """The byte of the first voxel."""
    offset = float(header["vox_offset"])
    if not 0 <= offset <= MAX_EXTRA_BYTES:
        raise ValueError(f"{path} states that voxels start at byte {offset:g}; convert it again from the original scan")
    return int(offset)


def _first_bytes(chunks: Iterator[bytes], count: int) -> bytes:
    """At least `count` bytes, or all there are."""
    start = b""
    while len(start) < count and (chunk := next(chunks, None)) is not None:
        start += chunk
    return start


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    """The content of a file in pieces of at most CHUNK bytes, decompressed if it is gzip.

    Several gzip streams one after the other are one file. What follows the last stream is ignored, as gzip does:
    padding of tapes and file servers.
    """
    piece = file.read(CHUNK)
    if not piece.startswith(GZIP_MAGIC):
        while piece:
            yield piece
            piece = file.read(CHUNK)
        return
    while piece.startswith(GZIP_MAGIC):
        stream = zlib.decompressobj(GZIP_FORMAT)
        while not stream.eof:
            piece = piece or file.read(CHUNK)
            content = stream.decompress(piece, CHUNK)
            if not content and not piece:
                raise EOFError("the gzip stream has no end")
            yield content
            piece = stream.unconsumed_tail
        piece = stream.unused_data or file.read(CHUNK)
        if len(piece) < len(GZIP_MAGIC):
            piece += file.read(CHUNK)


def _read_rest(chunks: Iterator[bytes], content: io.BytesIO, stated: int, path: Path) -> None:
    """Append the rest of the file to `content`, at most MAX_EXTRA_BYTES beyond the stated bytes."""
    for chunk in chunks:
        content.write(chunk)
        if content.tell() > stated + MAX_EXTRA_BYTES:
            raise ValueError(f"{path} has more than {MAX_EXTRA_BYTES >> 20} MiB after its last voxel; convert it again")
    if content.tell() < stated:
        raise EOFError(f"{stated - content.tell()} bytes are missing")
