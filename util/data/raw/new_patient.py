"""The scans of one new patient: which file in a folder is which contrast."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from util.data.folder import CONTRASTS
from util.data.raw.finding import image_files, stem
from util.data.raw.layouts import RawStudy
from util.data.raw.roles import Candidates, Names

logger = logging.getLogger(__name__)
DICOM_MAGIC, DICOM_MAGIC_AT = b"DICM", 128
DICOM_SUFFIXES = (".dcm", ".ima")
MAX_DICOM_CHECKS = 200  # files of a folder without NIfTI that are opened to see whether they are DICOM
EXAMPLES = "NAME_t1.nii.gz, NAME-t1c.nii.gz, T2.nii.gz or FLAIR.nii.gz"


def find_patient(folder: Path, names: Names = Names()) -> RawStudy:  # noqa: B008 - it is never changed
    """The study of the files below `folder`, which may have the names of any layout. The study has the folder's name.

    Some contrasts may be missing. Raises ValueError with the folder or files at fault and the fix.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give a patient's folder, or files by --t1, --t2, --t1ce, --flair")
    candidates, unknown = Candidates(names), []
    for path in image_files(folder):
        role, name = _role(path, names)
        if role is None:
            unknown.append(path)
        else:
            candidates.add(role, name, path)
    files, duplicate, unused = candidates.choose()
    if duplicate:
        role, one, other = duplicate
        raise ValueError(
            f"{one} and {other} are both the {role} of {folder}; give the folder of one patient and one visit, or name "
            f"the files by --t1, --t2, --t1ce, --flair, --seg or --names"
        )
    if not any(contrast in files for contrast in CONTRASTS):
        _check_not_dicom(folder)
        raise ValueError(
            f"{folder} has no file named like {EXAMPLES}; rename the files, or name them by --t1, --t2, --t1ce, --flair"
        )
    if unknown:
        logger.info("%d files below %s are no known contrast, the first is %s", len(unknown), folder, unknown[0])
    unused += unknown
    return RawStudy(_checked_name(folder.resolve().name), files, seg_is_given="seg" in names.given, unused=unused)


def with_masks(study: RawStudy, files: Mapping[str, Path]) -> RawStudy:
    """The study with the user's own "seg" and "brain" in place of those that were found."""
    for role, path in files.items():
        if not path.is_file():
            raise ValueError(f"{path}, given as the {role}, is missing")
    is_given = study.seg_is_given or "seg" in files
    return replace(study, files={**study.files, **files}, seg_is_given=is_given)


def patient_from_files(files: Mapping[str, Path | None]) -> RawStudy:
    """The study of the given files; None stands for a missing contrast. The study has the first file's name without the
    contrast."""
    given = {contrast: path for contrast, path in files.items() if path is not None}
    first = next(iter(given.values()))
    for role, path in given.items():
        contrast = {"brain": "brain_mask"}.get(role, role)  # the option
        if path.is_dir():
            _check_not_dicom(path)
            raise ValueError(f"--{contrast} {path} is a folder; give one NIfTI file")
        if not path.is_file():
            raise ValueError(f"--{contrast} {path} is missing")
        if path.name.lower().endswith(DICOM_SUFFIXES) or _is_dicom(path):
            raise ValueError(_dicom_error(path, path.parent))
    name, known = stem(first.name), Names()
    if known.role(name):
        name = first.resolve().parent.name
    elif parts := known.split(name, first.parent.name):
        name = parts[0].rstrip("_-. ")
    return RawStudy(_checked_name(name or first.resolve().parent.name), given, seg_is_given="seg" in given)


def _role(path: Path, names: Names) -> tuple[str | None, str]:
    """The role of a file and its name for it, with or without the patient's name before it."""
    name = stem(path.name)
    if role := names.role(name):
        return role, name
    parts = names.split(name, path.parent.name)
    return (parts[1], parts[2]) if parts else (None, "")


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
