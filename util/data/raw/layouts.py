"""Find raw studies: which NIfTI file is which contrast of which subject, in the layouts of BraTS, EGD and others."""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from util.data.folder import CONTRASTS
from util.data.raw.nifti_file import SUFFIX
from util.data.subject_names import name_problem

logger = logging.getLogger(__name__)

# Contrast names in file names -> ours: BraTS until 2021, BraTS from 2023, EGD.
ROLES = {
    "t1": "t1", "t1n": "t1",
    "t1ce": "t1ce", "t1c": "t1ce", "t1gd": "t1ce",
    "t2": "t2", "t2w": "t2",
    "flair": "flair", "t2f": "flair",
    "seg": "seg", "mask": "seg",
    "brain_mask": "brain", "brainmask": "brain", "mask_brain": "brain",
}  # fmt: skip
EXAMPLE_PATTERN = "{subject}/{subject}_{contrast}.nii.gz"
_ROLE = "|".join(sorted(ROLES, key=len, reverse=True))
_SUFFIX = rf"({SUFFIX})"


@dataclass
class RawStudy:
    """The raw files of one subject: the contrasts, "seg" and "brain", as far as they exist."""

    subject: str
    files: dict[str, Path] = field(default_factory=dict)
    assumed_orientation: str | None = None
    """Axis codes, such as LPS, for files whose header has no orientation."""
    problem: str | None = None
    """Why the study cannot be prepared, with the file at fault and the fix."""


def find_brats(source: Path) -> list[RawStudy]:
    """The studies of files such as NAME_t1.nii.gz or NAME-t1n.nii.gz, at any depth below `source`."""
    expression = re.compile(rf"(.*/)?(?P<subject>[^/]+?)[_-](?P<role>{_ROLE}){_SUFFIX}", re.I)
    return _collect(source, _files(source), expression, "NAME/NAME_t1.nii.gz")


def find_egd(source: Path) -> list[RawStudy]:
    """The studies of files such as SUBJECT/1_T1/NIFTI/T1.nii.gz, in `source` or its folder SUBJECTS. The folders
    between subject and file may differ."""
    root = source / "SUBJECTS" if (source / "SUBJECTS").is_dir() else source
    pattern = re.compile(rf"(?P<subject>[^/]+)/(.*/)?(?P<role>{_ROLE}){_SUFFIX}", re.I)
    return _collect(root, _files(root), pattern, "SUBJECT/1_T1/NIFTI/T1.nii.gz")


def find_by_pattern(source: Path, pattern: str) -> list[RawStudy]:
    """The studies of files below `source` that match `pattern`, such as "{subject}/{subject}_{contrast}.nii.gz".

    {contrast} stands for t1, t2, t1ce, flair, seg or one of their other names; * for any part of a name.
    """
    for part in ("{subject}", "{contrast}"):
        if part not in pattern:
            raise ValueError(f'--pattern "{pattern}" has no {part}; for instance {EXAMPLE_PATTERN}')
    if unknown := set(re.findall(r"\{[^}]*\}", pattern)) - {"{subject}", "{contrast}"}:
        raise ValueError(f'--pattern "{pattern}": {sorted(unknown)[0]} is unknown; use {{subject}} and {{contrast}}')
    expression, seen = "", set()
    for piece in re.split(r"(\{subject\}|\{contrast\}|\*)", pattern):
        if piece in seen:  # a repeated placeholder must match the same text
            expression += "(?P=subject)" if piece == "{subject}" else "(?P=role)"
        elif piece == "{subject}":
            expression += "(?P<subject>[^/]+?)"
        elif piece == "{contrast}":
            expression += f"(?P<role>{_ROLE})"
        else:
            expression += "[^/]*" if piece == "*" else re.escape(piece)
        if piece.startswith("{"):
            seen.add(piece)
    glob = re.sub(r"\{subject\}|\{contrast\}", "*", pattern)
    return _collect(source, sorted(source.glob(glob)), re.compile(expression, re.I), pattern)


def _files(root: Path) -> list[Path]:
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder; give the folder that holds the studies")
    return image_files(root)


def image_files(root: Path) -> list[Path]:
    """The files below `root` that have the name of an image we read."""
    return sorted(path for path in root.rglob("*") if re.search(rf"({SUFFIX})$", path.name, re.I) and path.is_file())


def _collect(root: Path, files: Iterable[Path], expression: re.Pattern[str], example: str) -> list[RawStudy]:
    """Studies sorted by subject. A contrast that is missing or found twice becomes the study's problem."""
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder; give the folder that holds the studies")
    studies: dict[str, RawStudy] = {}
    ignored = []
    for path in files:
        match = expression.fullmatch(path.relative_to(root).as_posix())
        if match is None:
            ignored.append(path)
            continue
        study = studies.setdefault(match["subject"], RawStudy(match["subject"]))
        role = ROLES[match["role"].lower()]
        if role in study.files:
            study.problem = (
                f'duplicate: {study.files[role]} and {path} are both the {role} of subject "{study.subject}"; '
                "rename or remove one"
            )
        study.files.setdefault(role, path)
    if not studies:
        raise ValueError(f"{root} has no files like {example}; check the folder, or use `folder` with --pattern")
    if ignored:
        logger.info(
            "%d files below %s are no known contrast and are left out, the first is %s", len(ignored), root, ignored[0]
        )
    for study in studies.values():
        study.problem = study.problem or name_problem(study.subject)
        missing = [contrast for contrast in CONTRASTS if contrast not in study.files]
        if missing and study.problem is None:
            beside = next(iter(study.files.values()))
            study.problem = f"no {', '.join(missing)} beside {beside}; add the file or leave the subject out"
    return [studies[subject] for subject in sorted(studies)]
