"""The map of a run is the mean over its folds."""

import pytest
import torch

from tests.helpers.vis_cases import SIZE, write_finetune_run, write_prepared
from util.inference.ensemble import open_ensemble
from vis.maps.fold_mean import mean_maps
from vis.maps.latent import latent_maps
from vis.maps.registry import MapOptions, compute_maps

CPU = torch.device("cpu")
SUBJECTS = ["A", "B", "C", "D"]


@pytest.fixture
def run(tmp_path):
    data = write_prepared(tmp_path / "data", SUBJECTS)
    return write_finetune_run(tmp_path / "run", data, SUBJECTS)


def test_maps_are_the_mean_over_folds(run):
    models, scan = open_ensemble(run, CPU).models.values(), torch.randn(1, 4, *SIZE)
    each = [latent_maps(model, scan, ["norm"])["norm"][0] for model in models]
    torch.testing.assert_close(mean_maps(models, scan, ["norm"], 1)["norm"].values_zyx, (each[0] + each[1]) / 2)
    for_one, for_other = (mean_maps(models, scan, ["gradient"], target)["gradient"].values_zyx for target in (1, 0))
    torch.testing.assert_close(for_one, -for_other)
    assert for_one.abs().max() > 0


def test_a_mean_map_has_the_completeness_of_its_worst_fold(run):
    models, scan = open_ensemble(run, CPU).models.values(), torch.randn(1, 4, *SIZE)
    mean = mean_maps(models, scan, ["integrated"], 1)["integrated"]
    each = [compute_maps(m, scan, ["integrated"], MapOptions(target=1))["integrated"] for m in models]
    gaps = [found.completeness[0].gap for found in each]
    assert mean.completeness.gap == max(gaps) > min(gaps)
