"""The three adult-type diffuse gliomas of the 2021 WHO classification, from IDH and 1p/19q.

Source: Louis et al. 2021, "The 2021 WHO Classification of Tumors of the Central Nervous System" (Neuro-Oncology 23:8).
Astrocytoma is IDH-mutant without 1p/19q co-deletion, oligodendroglioma IDH-mutant with it; glioblastoma is IDH wild
type.
"""

from dataclasses import dataclass

from util.statistics.metrics import THRESHOLD

NOTICE = "Research use only, not a medical device."  # shown with every result
CLASS_NAMES = {  # classes 0 and 1 of each label type
    "IDH": ("IDH wild type", "IDH mutant"),
    "1p19q": ("1p/19q intact", "1p/19q co-deleted"),
}
ASTROCYTOMA = "Astrocytoma, IDH-mutant"
OLIGODENDROGLIOMA = "Oligodendroglioma, IDH-mutant and 1p/19q-codeleted"
GLIOBLASTOMA = "Glioblastoma, IDH wild type"
IMPOSSIBLE = "Impossible combination: 1p/19q-codeleted, yet IDH wild type"
LIMITS = (
    "The probabilities of the two models are multiplied as if their errors were independent. The models do not know "
    "histology, grade, age, TERT, EGFR, chromosomes 7 and 10 or H3, which the classification also requires."
)


@dataclass(frozen=True)
class WhoReading:
    """The tumour type that two predictions define.

    reading: one of the three types, or IMPOSSIBLE if the two predicted classes contradict each other. probabilities:
    by type, including the impossible combination; they sum to 1.
    """

    reading: str
    probabilities: dict[str, float]


def who_2021(
    idh_mutant: float, codeleted: float, *, idh_threshold: float = THRESHOLD, codeletion_threshold: float = THRESHOLD
) -> WhoReading:
    """The type that the two predicted classes define, as the markers do in pathology, with the probability of each
    type."""
    for name, value in (("IDH mutation", idh_mutant), ("1p/19q co-deletion", codeleted)):
        if not 0 <= value <= 1:
            raise ValueError(f"the probability of {name} is {value}; it must lie between 0 and 1")
    probabilities = {
        ASTROCYTOMA: idh_mutant * (1 - codeleted),
        OLIGODENDROGLIOMA: idh_mutant * codeleted,
        GLIOBLASTOMA: (1 - idh_mutant) * (1 - codeleted),
        IMPOSSIBLE: (1 - idh_mutant) * codeleted,
    }
    mutant, deleted = idh_mutant >= idh_threshold, codeleted >= codeletion_threshold
    reading = {
        (True, False): ASTROCYTOMA,
        (True, True): OLIGODENDROGLIOMA,
        (False, False): GLIOBLASTOMA,
        (False, True): IMPOSSIBLE,
    }[mutant, deleted]
    return WhoReading(reading, probabilities)
