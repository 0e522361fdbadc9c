"""What file names call a contrast, a tumour's segmentation or a brain mask: the "role" of a file in its study."""

import argparse
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from util.data.folder import CONTRASTS

ROLES = (*CONTRASTS, "seg", "brain")
MASK = "mask"  # a file of this name alone is the tumour in EGD, and the brain where there is a segmentation beside it
CONTRAST_NAMES = {
    "t1": r"t1[wn]?|t1w?[_-]?(pre|native)",
    "t1ce": r"t1w?[_-]?(ce|c|gd|gad|km|cm|post([_-]?(contrast|gd))?|contrast)|(ce|c|gd|post)[_-]?t1w?|ce-[a-z0-9]+_t1w",
    "t2": r"t2w?",
    "flair": r"(t2w?[_-]?)?(flair|fla)|t2f",
}
_CONTRAST = "|".join(CONTRAST_NAMES.values())
_OF_CONTRAST = rf"(({_CONTRAST})[_-])?"
NAMES = {
    **CONTRAST_NAMES,
    "brain": rf"{_OF_CONTRAST}(desc-)?((hd[_-]?bet|bet|brain|ss|synthstrip|skull[_-]?strip(ped|ping)?)[_-]?mask|"
    r"mask[_-]?(brain|bet)|brain[_-]?(seg|segmentation)|brainextraction[_-]?mask)|hd[_-]?bet",
    "seg": rf"{_OF_CONTRAST}((auto(mated|matic)?|manual(ly)?|corrected|approx|final|tumou?r|glioma|lesion)[_-]?)*"
    r"(seg(m|mentations?)?)|((manual|final)[_-]?)?(tumou?r|glioma|lesion)[_-]?(mask|label|roi)|"
    r"glistr(boost)?([_-]?manually[_-]?corrected)?",
    MASK: rf"{_OF_CONTRAST}mask",
}  # fmt: skip
EXPRESSIONS = {role: re.compile(expression, re.I) for role, expression in NAMES.items()}
LOOKS_LIKE_MASK = re.compile(r"seg|mask|tumou?r|lesion|label|roi|glistr|gtv|annot", re.I)
BY_HAND, AUTOMATED = re.compile("manual", re.I), re.compile("auto|approx|glistr", re.I)
NONE = "none"  # stands for a role that is not to be used


@dataclass(frozen=True)
class Names:
    """The names that files may have, the usual ones and those that the user gives."""

    given: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Names by role, with * for any part. ("none",): the role is not used."""

    def role(self, text: str) -> str | None:
        """The role of a name without suffix and subject, such as "t1ce" for "T1-Gd". None if it is unknown."""
        for role, names in self.given.items():
            if any(re.fullmatch(_as_expression(name), text, re.I) for name in names if name != NONE):
                return role
        found = next((role for role, expression in EXPRESSIONS.items() if expression.fullmatch(text)), None)
        return None if NONE in self.given.get("seg" if found == MASK else found or "", ()) else found

    @property
    def expression(self) -> str:
        """A regular expression, without groups that have names, for all names."""
        own = [_as_expression(name) for names in self.given.values() for name in names if name != NONE]
        return "|".join([*own, *NAMES.values()])

    def split(self, stem: str, folder: str) -> tuple[str, str, str] | None:
        """(subject, role, name of the role) of a file such as NAME_t1. None if the end is no role.

        Where there are several ways, the subject has the name of the file's folder, or is the shortest.
        """
        ways = []
        for separator in re.finditer(r"[_\-. ]", stem):
            subject, name = stem[: separator.start()], stem[separator.end() :]
            if subject and (role := self.role(name)):
                ways.append((subject, role, name))
        return next((way for way in ways if way[0].lower() == folder.lower()), ways[0] if ways else None)

    def rank(self, role: str, name: str) -> int:
        """Which of several files of one role is used: the lowest."""
        if any(re.fullmatch(_as_expression(each), name, re.I) for each in self.given.get(role, ())):
            return 0
        return 1 if BY_HAND.search(name) else 3 if AUTOMATED.search(name) else 2


@dataclass
class Candidates:
    """The files of one study that have the name of a role."""

    names: Names
    found: dict[str, list[tuple[int, Path]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, role: str, name: str, path: Path) -> None:
        self.found[role].append((self.names.rank(role, name), path))

    def choose(self) -> tuple[dict[str, Path], tuple[str, Path, Path] | None, list[Path]]:
        """The file of each role; a role with two files, of which none comes first; the files that are not used."""
        found = {role: sorted(files) for role, files in self.found.items()}
        if unclear := found.pop(MASK, []):
            found.setdefault("brain" if "seg" in found else "seg", []).extend((9, path) for _, path in unclear)
        files, duplicate, unused = {}, None, []
        for role, ranked in found.items():
            (rank, files[role]), *others = ranked
            for other_rank, path in others:
                if other_rank == rank and role != "brain":  # one brain mask is as good as another
                    duplicate = duplicate or (role, files[role], path)
                unused.append(path)
        return files, duplicate, unused


def names_option(text: str) -> tuple[str, str]:
    """(role, name) of ROLE=NAME, as a check of an option."""
    role, equals, name = text.partition("=")
    role = {"brain_mask": "brain", "segmentation": "seg"}.get(role.lower(), role.lower())
    if not equals or not name or role not in ROLES:
        raise argparse.ArgumentTypeError(
            f'"{text[:60]}" is not ROLE=NAME; a role is {", ".join(ROLES)}, and NAME is what files call it, such as '
            "t1ce=T1POST"
        )
    if "/" in name or re.search(r"\.(nii|gz|img|hdr|mgz)$", name, re.I):
        raise argparse.ArgumentTypeError(
            f'"{text[:60]}": give the part of the file\'s name after the subject, without folder and suffix, such as '
            "t1ce=T1POST for NAME_T1POST.nii.gz"
        )
    return role, name


def given_names(pairs: Iterable[tuple[str, str]]) -> Names:
    """The names of all ROLE=NAME. Raises ValueError if one name stands for two roles."""
    given: dict[str, list[str]] = {}
    roles: dict[str, str] = {}
    for role, name in pairs:
        if name != NONE and roles.setdefault(name.lower(), role) != role:
            raise ValueError(f"--names: {name} is given for {roles[name.lower()]} and for {role}; give it once")
        given.setdefault(role, []).append(name)
    return Names(given)


def _as_expression(name: str) -> str:
    return "(" + ".*".join(re.escape(part) for part in name.split("*")) + ")"
