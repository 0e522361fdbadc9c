import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from engine_pretrain import Reconstruction, patch_mean_loss
from models import MAEOutput, create_model
from tests.conftest import SMALL
from util.distributed.world import World
from util.training.loader import eval_loader, start_epoch, train_loader


class Spy(nn.Module):
    """Records which noise every subject received."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def forward(self, volume, mask_ratio, noise, return_pred):
        assert not return_pred
        self.ratio = mask_ratio
        for subject, row in zip(volume[:, 0].tolist(), noise, strict=True):
            self.seen[subject] = row.tolist()
        return MAEOutput(torch.ones(()), None, noise, noise, noise)


def noises(rank, size, batch_size, epoch=0):
    data = TensorDataset(torch.arange(8.0).unsqueeze(1), torch.zeros(8))
    world, model = World(rank, size, torch.device("cpu")), Spy()
    loader = train_loader(data, batch_size=batch_size, world=world, seed=0, num_workers=0, pin_memory=False)
    objective = Reconstruction(tokens=5, mask_ratio=0.4, seed=0, world=world)
    start_epoch(loader, epoch)
    for step, (volumes, labels) in enumerate(loader):
        assert objective(model, volumes, labels, epoch, step) == 1
    assert model.ratio == 0.4
    return model.seen


def test_without_a_mask_ratio_the_model_gets_the_volume_alone():
    def unmasked(volume, return_pred):
        assert not return_pred
        return MAEOutput(volume.mean(), None, volume, volume, volume)

    objective = Reconstruction(tokens=5, mask_ratio=None, seed=0, world=World(0, 1, torch.device("cpu")))
    assert objective(unmasked, torch.full((4, 1), 3.0), torch.zeros(4), 0, 0) == 3


def test_masks_do_not_depend_on_the_number_of_ranks_but_on_the_epoch():
    alone = noises(0, 1, 4)
    assert {**noises(0, 2, 2), **noises(1, 2, 2)} == alone
    assert len(alone) == len({tuple(row) for row in alone.values()}) == 8
    assert noises(0, 1, 4, epoch=1) != alone


@pytest.mark.parametrize("norm_pix_loss", [False, True])
@pytest.mark.parametrize("kind", ["mae", "ar"])
def test_baseline_is_the_variance_within_patches(kind, norm_pix_loss, volume):
    mae = create_model(f"{kind}_3d_vim_small_patch8", **SMALL, norm_pix_loss=norm_pix_loss)
    data = TensorDataset(3 * volume, torch.zeros(2))
    loss = patch_mean_loss(mae, eval_loader(data, batch_size=1, num_workers=0), torch.device("cpu"))
    values = mae.patchify(3 * volume)
    variance = values.var(-1, unbiased=False).mean()
    unbiased = (values.var(-1, unbiased=False) / (values.var(-1) + 1e-6)).mean()
    assert loss == pytest.approx(float(unbiased if norm_pix_loss else variance), rel=1e-5)
