"""Open a NIfTI file in memory, within the limits of what a scan of a head can hold."""

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
"""A head at 0.4 mm has fewer voxels. Reading takes up to 32 bytes per voxel (stored float64, a copy, scaled values,
float32), that is 4 GiB for the largest file; int16, which scanners write, takes 12."""
MAX_EXTRA_BYTES = 16 * 2**20
"""Largest size of the extensions before the voxels, and of other content after them."""
CHUNK = 4 * 2**20  # bytes read at once, so that a header with a false size costs no memory


def open_nifti(path: Path) -> nibabel.Nifti1Image:
    """The image of a .nii or .nii.gz file. The file is decompressed to its end, so that its checksum is verified.

    Raises ValueError, before any voxel is read, unless it holds one 3-D volume of real numbers with at most MAX_VOXELS;
    ImageFileError if it is no NIfTI file; EOFError, OSError, zlib.error or HeaderDataError if it is damaged.
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
                _read_rest(stream, content, _stated_bytes(header, path), path)
                content.seek(0)
                try:
                    return kind.from_stream(content)
                except (ValueError, OverflowError) as error:  # an invalid rotation, a size that is no number
                    raise HeaderDataError(error) from error
    raise ImageFileError("no NIfTI header")


def _stated_bytes(header: Nifti1Header, path: Path) -> int:
    """Bytes up to the last voxel, as the checked header states them."""
    stored, shape = header.get_data_dtype(), header.get_data_shape()
    if stored.fields is not None or stored.kind not in "iuf":
        raise ValueError(f"{path} holds colours or complex numbers; a scan has one real number per voxel")
    if len(shape) != 3 and (len(shape) != 4 or shape[3] != 1):
        raise ValueError(f"{path} has {len(shape)} dimensions {shape}; extract one 3-D volume from it")
    if min(shape) < 1 or (voxels := math.prod(int(side) for side in shape)) > MAX_VOXELS:
        raise ValueError(
            f"{path} states {' x '.join(map(str, shape))} voxels, the allowed range is 1 to {MAX_VOXELS:,}; convert it "
            "again, or resample a larger scan"
        )
    offset = float(header["vox_offset"])
    if not 0 <= offset <= MAX_EXTRA_BYTES:
        raise ValueError(f"{path} states that voxels start at byte {offset:g}; convert it again from the original scan")
    return max(int(offset), header.single_vox_offset) + voxels * stored.itemsize


def _read_rest(stream: IO[bytes], content: io.BytesIO, stated: int, path: Path) -> None:
    """Append the rest of `stream` to `content`, at most MAX_EXTRA_BYTES beyond the stated bytes."""
    while chunk := stream.read(CHUNK):
        content.write(chunk)
        if content.tell() > stated + MAX_EXTRA_BYTES:
            raise ValueError(f"{path} has more than {MAX_EXTRA_BYTES >> 20} MiB after its last voxel; convert it again")
    if content.tell() < stated:
        raise EOFError(f"{stated - content.tell()} bytes are missing")
