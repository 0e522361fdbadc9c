"""The scans of one new patient: which file in a folder is which contrast."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from util.data.folder import CONTRASTS
from util.data.raw.layouts import ROLES, RawStudy, image_files
from util.data.raw.nifti_file import SUFFIX

logger = logging.getLogger(__name__)
NAMED = re.compile(rf"(.*[_\-. ])?(?P<role>{'|'.join(sorted(ROLES, key=len, reverse=True))})({SUFFIX})", re.I)
DICOM_MAGIC, DICOM_MAGIC_AT = b"DICM", 128
DICOM_SUFFIXES = (".dcm", ".ima")
MAX_DICOM_CHECKS = 200  # files of a folder without NIfTI that are opened to see whether they are DICOM
EXAMPLES = "NAME_t1.nii.gz, NAME-t1c.nii.gz, T2.nii.gz or FLAIR.nii.gz"


def find_patient(folder: Path) -> RawStudy:
    """The study of the files below `folder`, which may have the names of any layout. The study has the folder's name.

    Some contrasts may be missing. Raises ValueError with the folder or files at fault and the fix.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give a patient's folder, or files by --t1, --t2, --t1ce, --flair")
    files: dict[str, Path] = {}
    unknown = []
    for path in image_files(folder):
        match = NAMED.fullmatch(path.name)
        if match is None:
            unknown.append(path)
            continue
        role = ROLES[match["role"].lower()]
        if role in files:
            raise ValueError(
                f"{files[role]} and {path} are both the {role} of {folder}; give the folder of one patient and one "
                f"visit, or name the files by --t1, --t2, --t1ce, --flair"
            )
        files[role] = path
    if not any(contrast in files for contrast in CONTRASTS):
        _check_not_dicom(folder)
        raise ValueError(
            f"{folder} has no file named like {EXAMPLES}; rename the files, or name them by --t1, --t2, --t1ce, --flair"
        )
    if unknown:
        logger.info("%d files below %s are no known contrast, the first is %s", len(unknown), folder, unknown[0])
    return RawStudy(_checked_name(folder.resolve().name), files)


def patient_from_files(files: Mapping[str, Path | None]) -> RawStudy:
    """The study of the given files; None stands for a missing contrast. The study has the first file's name without the
    contrast."""
    given = {contrast: path for contrast, path in files.items() if path is not None}
    first = next(iter(given.values()))
    for contrast, path in given.items():
        if path.is_dir():
            _check_not_dicom(path)
            raise ValueError(f"--{contrast} {path} is a folder; give one NIfTI file")
        if not path.is_file():
            raise ValueError(f"--{contrast} {path} is missing")
        if path.name.lower().endswith(DICOM_SUFFIXES) or _is_dicom(path):
            raise ValueError(_dicom_error(path, path.parent))
    stem = re.sub(rf"({SUFFIX})$", "", first.name, flags=re.I)
    match = NAMED.fullmatch(first.name)
    name = stem[: len(match[1] or "")].rstrip("_-. ") if match else stem
    return RawStudy(_checked_name(name or first.resolve().parent.name), given)


def missing_contrasts(study: RawStudy, needed: tuple[str, ...]) -> list[str]:
    return [contrast for contrast in needed if contrast not in study.files]


def _check_not_dicom(folder: Path) -> None:
    for path in sorted(path for path in folder.rglob("*") if path.is_file())[:MAX_DICOM_CHECKS]:
        if path.name.upper() == "DICOMDIR" or path.name.lower().endswith(DICOM_SUFFIXES) or _is_dicom(path):
            raise ValueError(_dicom_error(path, folder))


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(DICOM_MAGIC_AT + len(DICOM_MAGIC))[DICOM_MAGIC_AT:] == DICOM_MAGIC


def _dicom_error(path: Path, folder: Path) -> str:
    return (
        f"{path} is DICOM; convert the folder first: dcm2niix -z y -f %p -o OUT {folder}, then register the contrasts "
        "to one grid, strip the skull, and name the files as in prepare_data.py"
    )


def _checked_name(name: str) -> str:
    """The name, if it can be a folder of the output and a table cell that no spreadsheet evaluates."""
    if not name.isprintable() or not name.strip() or name[0] in ".=+-@":
        raise ValueError(f"the patient's name {name!r} would be a hidden file or a formula; rename the folder or file")
    return name
