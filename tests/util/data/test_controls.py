import numpy as np
import pytest

from tests.helpers.prepared import make_prepared
from util.data.controls import controlled, noise_brain, without_tumour
from util.data.dataset import PreparedVolumes
from util.data.folder import segmentation_path, volume_path


@pytest.fixture
def volumes(tmp_path):
    root = make_prepared(tmp_path, count=6, unknown=0)
    (root / "seg_mask").mkdir()
    for index in range(6):
        mask = np.zeros((16, 16, 16), np.uint8)
        mask[4:8, 4:8, 4:8] = 1
        np.save(segmentation_path(root, f"sub-{index:02d}"), mask)
    return PreparedVolumes(root, labels={f"sub-{i:02d}": i % 2 for i in range(6)})


def test_the_background_control_keeps_only_the_outline(volumes):
    shown = controlled(volumes, "background", 0)
    for subject in volumes.subjects:
        plain, masked = volumes.stored_volume(subject), shown.stored_volume(subject)
        np.testing.assert_array_equal(masked > 0, np.broadcast_to((plain > 0).any(0), plain.shape))
        inside = masked[masked > 0]
        assert abs(inside.mean() - 128) < 3
    bright = np.full((1, 4, 4, 4), 250, np.uint8)
    np.testing.assert_array_equal(noise_brain(bright, "x"), noise_brain(bright // 2, "x"))
    assert (noise_brain(bright, "x") != noise_brain(bright, "y")).any()


def test_the_tumour_is_replaced_by_what_lies_opposite():
    volume = np.full((1, 9, 9, 16), 100, np.uint8)
    volume[..., 8:] = 60  # the right half is darker
    volume[0, 3:6, 3:6, 3:5] = 250
    mask = volume[0] == 250
    shown = without_tumour(volume, mask)
    assert shown.max() == 100
    assert (shown[0][mask] == 60).all()  # mirrored
    assert (shown[0, 0, 0, :8] == 100).all()  # far away nothing changes
    assert volume.max() == 250  # the input is left alone


def test_where_the_mirror_image_is_tumour_too_the_healthy_mean_is_taken():
    volume = np.full((1, 11, 11, 12), 80, np.uint8)
    volume[0, 4:7, 4:7, :] = 200
    shown = without_tumour(volume, volume[0] == 200)
    assert (shown == 80).all()


def test_air_inside_the_mask_stays_air():
    volume = np.zeros((1, 8, 8, 8), np.uint8)
    volume[0, :, :, 4:] = 90
    mask = np.zeros((8, 8, 8), bool)
    mask[3:5, 3:5, :] = True
    assert (without_tumour(volume, mask)[..., :4] == 0).all()


def test_masked_volumes_behave_like_the_plain_ones(volumes):
    shown = controlled(volumes, "no_tumour", 0)
    part = shown.subset(["sub-01", "sub-03"])
    assert part.subjects == ["sub-01", "sub-03"]
    item, label = part[0]
    assert label == 1
    assert (item != volumes.subset(["sub-01"])[0][0]).any()
    stored, _ = part.stored()[0]
    np.testing.assert_array_equal(stored.numpy(), shown.stored_volume("sub-01"))
    assert shown.stored_volume("sub-01").max() < 250  # the blob that marks class 1 is gone


@pytest.mark.parametrize("control", ["background", "no_tumour", "shuffled_labels"])
def test_a_control_skips_what_the_plain_volumes_skip(volumes, control):
    plain = PreparedVolumes(volumes.root, labels=volumes.labels, on_bad_volume="skip")
    volume_path(volumes.root, "sub-02", "t2").write_bytes(b"")
    shown = controlled(plain, control, 0)
    shown[2]
    assert [subject for subject, _ in shown.stand_ins()] == ["sub-02"]
    part = shown.subset(["sub-02", "sub-03"])
    part[0]
    assert part.stand_ins() == [("sub-02", "sub-03")]
    assert plain.stand_ins() == []


def test_a_missing_segmentation_is_named(volumes):
    segmentation_path(volumes.root, "sub-02").unlink()
    with pytest.raises(ValueError, match='--control no_tumour: subject "sub-02" has no segmentation'):
        controlled(volumes, "no_tumour", 0)  # before the first volume is read


def test_shuffled_labels_keep_their_counts_and_come_from_the_seed(volumes):
    dealt = [controlled(volumes, "shuffled_labels", seed).labels for seed in (0, 0, *range(1, 6))]
    assert dealt[0] == dealt[1]
    assert any(found != dealt[0] for found in dealt)
    assert all(sorted(found.values()) == [0, 0, 0, 1, 1, 1] for found in dealt)
    assert controlled(volumes, "none", 0) is volumes
