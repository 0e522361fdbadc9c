import pytest

from util.patient.who_2021 import ASTROCYTOMA, GLIOBLASTOMA, IMPOSSIBLE, OLIGODENDROGLIOMA, who_2021


@pytest.mark.parametrize(
    ("idh", "codeleted", "reading"),
    [(0.9, 0.1, ASTROCYTOMA), (0.9, 0.8, OLIGODENDROGLIOMA), (0.2, 0.1, GLIOBLASTOMA), (0.2, 0.8, IMPOSSIBLE),
     (0.5, 0.49, ASTROCYTOMA)],
)  # fmt: skip
def test_the_two_markers_name_the_type(idh, codeleted, reading):
    found = who_2021(idh, codeleted)
    assert found.reading == reading
    assert sum(found.probabilities.values()) == pytest.approx(1)


def test_probabilities_of_the_types_add_up_to_those_of_the_markers():
    p = who_2021(0.7, 0.4).probabilities
    assert p[ASTROCYTOMA] + p[OLIGODENDROGLIOMA] == pytest.approx(0.7)
    assert p[OLIGODENDROGLIOMA] + p[IMPOSSIBLE] == pytest.approx(0.4)


def test_each_threshold_decides_its_marker():
    assert who_2021(0.4, 0.1, idh_threshold=0.3).reading == ASTROCYTOMA
    assert who_2021(0.9, 0.6, codeletion_threshold=0.7).reading == ASTROCYTOMA


@pytest.mark.parametrize("wrong", [(1.2, 0.1), (0.1, -0.1), (float("nan"), 0.5)])
def test_values_outside_zero_to_one_are_refused(wrong):
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        who_2021(*wrong)
