import torch
from timm.loss import SoftTargetCrossEntropy
from torch import nn
from torch.utils.data import TensorDataset

from engine_finetune import finetune_epoch, predict
from tests.helpers.prepared import make_prepared
from util.data.dataset import PreparedVolumes
from util.distributed.world import World
from util.training.loader import train_loader
from util.training.mixup import VolumeMixup
from util.training.optim import Schedule, Stepper

WORLD = World(0, 1, torch.device("cpu"))


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.drop = nn.Linear(4, 2), nn.Dropout(0.9)

    def forward(self, volume):
        return self.head(self.drop(volume.amax((2, 3, 4))))


def test_prediction_covers_every_subject_once_in_evaluation_mode(tmp_path):
    volumes = PreparedVolumes(make_prepared(tmp_path), normalize="range")
    model = Classifier().train()
    scored = predict(model, volumes, world=WORLD, batch_size=5)
    assert list(scored) == volumes.subjects
    assert model.training
    model.eval()
    for subject, probability in list(scored.items())[:3]:
        volume = volumes[volumes.subjects.index(subject)][0]
        torch.testing.assert_close(torch.tensor(probability), model(volume[None]).softmax(-1)[0, 1].detach())


def test_ranks_share_the_subjects_without_overlap(tmp_path):
    volumes, model, shares = PreparedVolumes(make_prepared(tmp_path), normalize="range"), Classifier(), []
    for rank in range(3):
        world = World(rank, 3, torch.device("cpu"))
        object.__setattr__(world, "gather", lambda items: items)  # what this rank alone computed
        shares.append(predict(model, volumes, world=world, batch_size=2))
    assert sorted(name for share in shares for name in share) == volumes.subjects


def learn(mixup=None, criterion=None):
    torch.manual_seed(0)
    labels = torch.arange(16) % 2
    volumes = torch.zeros(16, 4, 2, 2, 2) + labels.view(-1, 1, 1, 1, 1)
    model = Classifier()
    model.drop.p = 0.0
    loader = train_loader(
        TensorDataset(volumes, labels), batch_size=4, world=WORLD, seed=0, num_workers=0, pin_memory=False
    )
    stepper = Stepper(torch.optim.SGD(model.parameters(), lr=1.0), WORLD.device, "fp32", None)
    losses = [
        finetune_epoch(
            model, loader, world=WORLD, epoch=epoch, seed=0, criterion=criterion or nn.CrossEntropyLoss(), mixup=mixup,
            stepper=stepper, schedule=Schedule(1.0, 0, 0, 6, "constant"),
        )["train_loss"]
        for epoch in range(6)
    ]  # fmt: skip
    return losses


def test_an_epoch_learns():
    losses = learn()
    assert losses[-1] < 0.5 * losses[0]


def test_mixup_keeps_the_targets_soft():
    soft = learn(VolumeMixup(mixup_alpha=1.0, label_smoothing=0.0, num_classes=2), SoftTargetCrossEntropy())
    assert soft[-1] > 2 * learn()[-1]
