import dataclasses

import numpy as np
import pytest

from tests.helpers.vis_cases import manifest_row
from util.data.manifest import write_manifest
from util.protocol.patients import log_patients, patients_of


@pytest.mark.parametrize(
    "pair",
    [("BraTS-GLI-00001-000", "BraTS-GLI-00001-001"), ("UPENN-GBM-00001_11", "UPENN-GBM-00001_21"),
     ("sub-01_ses-1", "sub-01_ses-2"), ("P007_1", "P007_2"), ("anna_visit1", "anna_visit2"),
     ("p1_ses-pre1", "p1_ses-post2")],
)  # fmt: skip
def test_time_points_of_a_patient_by_their_names(pair, tmp_path):
    assert patients_of([*pair, "other", "BraTS-GLI-00002-000"], tmp_path) == dict.fromkeys(pair, min(pair))


@pytest.mark.parametrize(
    "names",
    [["sub-01", "sub-02"], ["BraTS2021_00001", "BraTS2021_00002"], ["TCGA-02-0006", "TCGA-02-0007"],
     [f"site1-{number:03d}" for number in range(40)], ["PHANTOM-0001", "PHANTOM-0002"], ["EGD-0001", "EGD-0002"]],
)  # fmt: skip
def test_numbered_patients_are_different_ones(names, tmp_path):
    assert patients_of(names, tmp_path) == {}


def test_equal_volumes_are_one_patient_whatever_their_names(tmp_path):
    row = manifest_row("A", np.eye(4))
    sums = {"A": "1", "B": "2", "C": "1"}
    rows = {
        name: dataclasses.replace(
            row, subject=name, checksum={f"t1/{name}_t1.npy": total, f"seg_mask/{name}_seg.npy": "0"}
        )
        for name, total in sums.items()
    }
    write_manifest(tmp_path, rows)
    assert patients_of(sums, tmp_path) == {"A": "A", "C": "A"}


def test_they_are_named(caplog):
    log_patients({"A-001-0": "A-001-0", "A-001-1": "A-001-0"})
    assert "2 subjects look like 1 patients" in caplog.text
    assert "A-001-0, A-001-1" in caplog.text
