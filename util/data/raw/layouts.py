"""Find raw studies: which image file is which contrast of which subject, in the layouts of BraTS, EGD and others."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from util.data.folder import CONTRASTS
from util.data.raw.finding import image_files, stem, unreadable_files
from util.data.raw.roles import Candidates, Names
from util.data.subject_names import name_problem

logger = logging.getLogger(__name__)

EXAMPLE_PATTERN = "{subject}/{subject}_{contrast}.nii.gz"
OTHER_LAYOUT = "or use `folder` with --pattern, or --names"
SHOWN = 3  # files that a message names


@dataclass
class RawStudy:
    """The raw files of one subject: the contrasts, "seg" and "brain", as far as they exist."""

    subject: str
    files: dict[str, Path] = field(default_factory=dict)
    assumed_orientation: str | None = None
    """Axis codes, such as LPS, for files whose header has no orientation."""
    seg_is_given: bool = False
    """Whether the user named the segmentation, so that only an impossible one is refused."""
    unused: list[Path] = field(default_factory=list)
    """Images beside the files that are not used."""
    problem: str | None = None
    """Why the study cannot be prepared, with the file at fault and the fix."""


Split = Callable[[Path], tuple[str, str, str] | None]
"""From a file's path below the source to (subject, role, name of the role), None if it is no part of a study."""


def find_brats(source: Path, names: Names = Names()) -> list[RawStudy]:  # noqa: B008 - it is never changed
    """The studies of files such as NAME_t1.nii.gz or NAME-t1n.nii.gz, at any depth below `source`."""

    def split(path: Path) -> tuple[str, str, str] | None:
        return names.split(stem(path.name), path.parent.name)

    return _collect(source, split, names, "NAME/NAME_t1.nii.gz", OTHER_LAYOUT)


def find_egd(source: Path, names: Names = Names()) -> list[RawStudy]:  # noqa: B008
    """The studies of files such as SUBJECT/1_T1/NIFTI/T1.nii.gz, in `source` or its folder SUBJECTS. The folders
    between subject and file may differ."""

    def split(path: Path) -> tuple[str, str, str] | None:
        name = stem(path.name)
        subject, *others = path.parts
        role = names.role(name) if others else None
        return (subject, role, name) if role else None

    root = source / "SUBJECTS" if (source / "SUBJECTS").is_dir() else source
    return _collect(root, split, names, "SUBJECT/1_T1/NIFTI/T1.nii.gz", OTHER_LAYOUT)


def find_by_pattern(source: Path, pattern: str, names: Names = Names()) -> list[RawStudy]:  # noqa: B008
    """The studies of files below `source` that match `pattern`, such as "{subject}/{subject}_{contrast}.nii.gz".

    {contrast} stands for t1, t2, t1ce, flair, seg or one of their other names; * for any part of a name; ** for any
    folders.
    """
    expression = _pattern_expression(pattern, names)

    def split(path: Path) -> tuple[str, str, str] | None:
        match = expression.fullmatch(path.as_posix())
        role = names.role(match["role"]) if match else None
        return (match["subject"], role, match["role"]) if match and role else None

    return _collect(source, split, names, pattern, "and the --pattern, or name the files by --names")


def _pattern_expression(pattern: str, names: Names) -> re.Pattern[str]:
    for part in ("{subject}", "{contrast}"):
        if part not in pattern:
            raise ValueError(f'--pattern "{pattern}" has no {part}; for instance {EXAMPLE_PATTERN}')
    if unknown := set(re.findall(r"\{[^}]*\}", pattern)) - {"{subject}", "{contrast}"}:
        raise ValueError(f'--pattern "{pattern}": {sorted(unknown)[0]} is unknown; use {{subject}} and {{contrast}}')
    if "{contrast}*" in pattern:
        raise ValueError(
            f'--pattern "{pattern}": {{contrast}}* would take T1ce for T1; write what separates them, such as '
            "{contrast}_*, or give the whole names by --names"
        )
    if pattern.startswith("/") or "**" in re.sub(r"(^|(?<=/))\*\*/", "", pattern):
        raise ValueError(f'--pattern "{pattern}" is relative to SRC, and ** stands for whole folders, such as **/')
    expression, seen = "", set()
    for piece in re.split(r"(\{subject\}|\{contrast\}|\*\*/|\*)", pattern):
        if piece in seen:  # a repeated placeholder must match the same text
            expression += "(?P=subject)" if piece == "{subject}" else "(?P=role)"
        elif piece == "{subject}":
            expression += "(?P<subject>[^/]+?)"
        elif piece == "{contrast}":
            expression += f"(?P<role>{names.expression})"
        else:
            expression += {"*": "[^/]*?", "**/": "(.*/)?"}.get(piece, re.escape(piece))
        if piece.startswith("{"):
            seen.add(piece)
    return re.compile(expression, re.I)


def _collect(root: Path, split: Split, names: Names, example: str, advice: str) -> list[RawStudy]:
    """Studies sorted by subject. A contrast that is missing or found twice becomes the study's problem."""
    files = image_files(root)
    candidates: dict[str, Candidates] = {}
    unknown: list[Path] = []
    for path in files:
        if found := split(path.relative_to(root)):
            candidates.setdefault(found[0], Candidates(names)).add(found[1], found[2], path)
        else:
            unknown.append(path)
    studies = [_study(subject, candidates[subject]) for subject in sorted(candidates)]
    stray = {study.subject for study in _strays(studies, root)}
    unknown += [path for study in studies if study.subject in stray for path in study.files.values()]
    studies = [study for study in studies if study.subject not in stray]
    if not studies:
        seen = f"; it has {_listed(files, root)}" if files else ""
        raise ValueError(f"{root} has no files like {example}{seen}; check the folder, {advice}")
    _add_unused(studies, unknown)
    if unknown:
        logger.info(
            "%d files below %s are no known contrast and are left out: %s", len(unknown), root, _listed(unknown, root)
        )
    if foreign := [path for path in unreadable_files(root) if split(path.relative_to(root).with_name(_as_nifti(path)))]:
        logger.warning(
            "%d files below %s are in a format that is not read, and are left out: %s; convert them to NIfTI",
            len(foreign), root, _listed(foreign, root),
        )  # fmt: skip
    return studies


def _study(subject: str, candidates: Candidates) -> RawStudy:
    files, duplicate, unused = candidates.choose()
    study = RawStudy(subject, files, seg_is_given="seg" in candidates.names.given, unused=unused)
    if duplicate:
        role, one, other = duplicate
        study.problem = (
            f'duplicate: {one} and {other} are both the {role} of subject "{subject}"; rename or remove one, or choose '
            f"one by --names {role}=NAME"
        )
    study.problem = study.problem or name_problem(subject)
    missing = [contrast for contrast in CONTRASTS if contrast not in files]
    if missing and study.problem is None:
        beside = next(iter(files.values()))
        study.problem = (
            f"no {', '.join(missing)} beside {beside}; add the file or leave the subject out, or say what it is "
            "called by --names"
        )
    return study


def _strays(studies: list[RawStudy], root: Path) -> Iterator[RawStudy]:
    """Files that are no study: masks alone, or one contrast in a folder that holds (the folder of) a whole study."""
    homes: set[Path] = set()
    for study in studies:
        if all(contrast in study.files for contrast in CONTRASTS):
            homes.update(*(path.relative_to(root).parents for path in study.files.values()))
    for study in studies:
        contrasts = [path for role, path in study.files.items() if role in CONTRASTS]
        if not contrasts or (len(contrasts) == 1 and contrasts[0].relative_to(root).parent in homes):
            yield study


def _add_unused(studies: list[RawStudy], unknown: Iterable[Path]) -> None:
    """Give each study the unknown files of its folder, or of the folder that has the subject's name."""
    by_folder: dict[str, RawStudy] = {}
    shared: set[str] = set()
    for study in studies:
        for folder in {str(path.parent) for path in study.files.values()}:
            if by_folder.setdefault(folder, study) is not study:
                shared.add(folder)
    for path in unknown:
        study = by_folder.get(str(path.parent))
        if str(path.parent) in shared:
            study = next((each for each in studies if path.name.startswith(each.subject)), None)
        if study is not None:
            study.unused.append(path)


def _as_nifti(path: Path) -> str:
    return re.sub(r"\.[a-z]+(\.gz)?$", ".nii", path.name, flags=re.I)


def _listed(files: list[Path], root: Path) -> str:
    names = ", ".join(str(path.relative_to(root)) for path in files[:SHOWN])
    return f"{names} and {len(files) - SHOWN} more" if len(files) > SHOWN else names
