"""A NIfTI file opened in memory: its header is believed only as far as a scan of a head goes."""

import gzip
import io
import math
from pathlib import Path
from typing import IO

import nibabel
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Header
from nibabel.spatialimages import HeaderDataError

GZIP_MAGIC = b"\x1f\x8b"
MAX_VOXELS = 512**3
"""A head at 0.4 mm has fewer. Reading one takes up to 32 bytes a voxel (float64 as stored, its copy, scaled, float32),
so 4 GiB for the largest; int16, as scanners write, takes 12."""
MAX_BESIDE = 16 * 2**20
"""Bytes of extensions before the voxels, and again of anything after them; more is no scan."""
CHUNK = 4 * 2**20  # read at once: a header that promises more than there is costs no memory


def open_nifti(path: Path) -> nibabel.Nifti1Image:
    """The image of a .nii or .nii.gz file, decompressed to its end, where the checksum is.

    ValueError, before any voxel is read, for what is not one 3-D volume of real numbers or has more than MAX_VOXELS;
    ImageFileError for no NIfTI at all; EOFError, OSError, zlib.error or HeaderDataError for a damaged one.
    """
    with path.open("rb") as file:
        compressed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        stream: IO[bytes] = gzip.GzipFile(fileobj=file) if compressed else file  # pyright: ignore[reportAssignmentType]
        start = stream.read(nibabel.Nifti2Image.header_class.sizeof_hdr)
        for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
            if kind.header_class.may_contain_header(start[: kind.header_class.sizeof_hdr]):
                header = kind.header_class(start[: kind.header_class.sizeof_hdr])
                content = io.BytesIO(start)
                content.seek(0, io.SEEK_END)
                _read_on(stream, content, _promised_bytes(header, path), path)
                content.seek(0)
                try:
                    return kind.from_stream(content)
                except (ValueError, OverflowError) as error:  # a rotation that is none, a size that is no number
                    raise HeaderDataError(error) from error
    raise ImageFileError("no NIfTI header")


def _promised_bytes(header: Nifti1Header, path: Path) -> int:
    """Bytes up to the last voxel, all of it checked."""
    stored, shape = header.get_data_dtype(), header.get_data_shape()
    if stored.fields is not None or stored.kind not in "iuf":
        raise ValueError(f"{path} holds colours or complex numbers; a scan has one real number per voxel")
    if len(shape) != 3 and (len(shape) != 4 or shape[3] != 1):
        raise ValueError(f"{path} has {len(shape)} dimensions {shape}; extract one 3-D volume from it")
    if min(shape) < 1 or (voxels := math.prod(int(side) for side in shape)) > MAX_VOXELS:
        raise ValueError(
            f"{path} says it has {' x '.join(map(str, shape))} voxels, where 1 to {MAX_VOXELS:,} are believed; "
            "convert it again, or resample a larger scan"
        )
    offset = float(header["vox_offset"])
    if not 0 <= offset <= MAX_BESIDE:
        raise ValueError(f"{path} says its voxels start at byte {offset:g}; convert it again from the original scan")
    return max(int(offset), header.single_vox_offset) + voxels * stored.itemsize


def _read_on(stream: IO[bytes], content: io.BytesIO, promised: int, path: Path) -> None:
    """Append the rest of `stream` to `content`: what is promised, and at most MAX_BESIDE bytes more."""
    while chunk := stream.read(CHUNK):
        content.write(chunk)
        if content.tell() > promised + MAX_BESIDE:
            raise ValueError(
                f"{path} goes on for more than {MAX_BESIDE >> 20} MiB after its last voxel; convert it again"
            )
    if content.tell() < promised:
        raise EOFError(f"{promised - content.tell()} bytes are missing")
