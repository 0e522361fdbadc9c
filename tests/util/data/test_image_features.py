import math

import numpy as np
import pytest

from tests.helpers.prepared import make_prepared
from util.data.dataset import PreparedVolumes
from util.data.folder import segmentation_path
from util.data.image_features import intensity_features, tumour_features


@pytest.fixture
def volumes(tmp_path):
    root = make_prepared(tmp_path, count=2, unknown=0)  # brain 2 to 13 in every axis, values 60 to 119
    (root / "seg_mask").mkdir()
    mask = np.zeros((16, 16, 16), np.uint8)
    mask[4:6, 4:8, 2:4] = 2
    np.save(segmentation_path(root, "sub-00"), mask)
    return PreparedVolumes(root)


def test_tumour_volume_and_place_by_hand(volumes):
    found = tumour_features(volumes, "sub-00")
    assert found["volume"] == pytest.approx(16 / 12**3)
    assert found["log_volume"] == pytest.approx(math.log(16 / 12**3))
    assert (found["z"], found["y"], found["x"]) == pytest.approx((2.5 / 11, 3.5 / 11, 0.5 / 11))
    assert found["off_midline"] == pytest.approx(0.5 - 0.5 / 11)
    assert found["spread"] == pytest.approx(math.sqrt(0.25 + 1.25 + 0.25))


def test_without_a_mask_or_with_an_empty_one_features_are_missing(volumes):
    assert all(math.isnan(value) for value in tumour_features(volumes, "sub-01").values())
    np.save(segmentation_path(volumes.root, "sub-01"), np.zeros((16, 16, 16), np.uint8))
    assert tumour_features(volumes, "sub-01").keys() == tumour_features(volumes, "sub-00").keys()
    assert math.isnan(tumour_features(volumes, "sub-01")["volume"])


def test_intensities_agree_with_numpy_over_the_brain(volumes):
    found, volume = intensity_features(volumes, "sub-01"), volumes.stored_volume("sub-01")
    brain = (volume > 0).any(0)
    for contrast, values in zip(volumes.contrasts, volume):
        inside = values[brain].astype(float)
        assert found[f"{contrast}_mean"] == pytest.approx(inside.mean())
        assert found[f"{contrast}_deviation"] == pytest.approx(inside.std())
        for percent in (10, 50, 90):
            expected = np.percentile(inside, percent, method="inverted_cdf")
            assert found[f"{contrast}_p{percent}"] == expected
