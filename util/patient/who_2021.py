"""IDH and 1p/19q put together: the three adult-type diffuse gliomas of the WHO classification of 2021.

Source: Louis et al. 2021, "The 2021 WHO Classification of Tumors of the Central Nervous System" (Neuro-Oncology 23:8):
astrocytoma is IDH-mutant without, oligodendroglioma IDH-mutant with 1p/19q co-deletion; glioblastoma is IDH wild type.
"""

from dataclasses import dataclass

from util.statistics.metrics import THRESHOLD

NOTICE = "Research use only, not a medical device."  # beside every reading
CLASS_NAMES = {  # of label types, class 0 first
    "IDH": ("IDH wild type", "IDH mutant"),
    "1p19q": ("1p/19q intact", "1p/19q co-deleted"),
}
ASTROCYTOMA = "Astrocytoma, IDH-mutant"
OLIGODENDROGLIOMA = "Oligodendroglioma, IDH-mutant and 1p/19q-codeleted"
GLIOBLASTOMA = "Glioblastoma, IDH wild type"
IMPOSSIBLE = "Impossible combination: 1p/19q-codeleted, yet IDH wild type"
LIMITS = (
    "Probabilities multiply the two models' as if they erred independently. The models see no histology, grade, age, "
    "TERT, EGFR, chromosomes 7 and 10 or H3, which the classification also asks for."
)


@dataclass(frozen=True)
class WhoReading:
    """reading: one of the three types, or IMPOSSIBLE where the two decisions contradict each other. probabilities: by
    type, the impossible combination included; they sum to 1."""

    reading: str
    probabilities: dict[str, float]


def who_2021(
    idh_mutant: float, codeleted: float, *, idh_threshold: float = THRESHOLD, codeletion_threshold: float = THRESHOLD
) -> WhoReading:
    """The reading of two probabilities: the decisions at their thresholds name the type, as markers do in pathology."""
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
