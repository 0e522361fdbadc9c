import pytest
import torch
from timm.loss import SoftTargetCrossEntropy
from torch import nn

from engine_finetune import Classification, classification
from util.options.finetune import FinetuneTrainingOptions
from util.training.mixup import VolumeMixup

CPU = torch.device("cpu")


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, volume):
        return self.head(volume.amax((2, 3, 4)))


def learn(objective):
    """Losses of 24 steps on an easy task."""
    torch.manual_seed(0)
    labels = torch.arange(16) % 2
    volumes = torch.zeros(16, 4, 2, 2, 2) + labels.view(-1, 1, 1, 1, 1)
    model = Classifier()
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=1.0), []
    for step in range(24):
        chosen = torch.randperm(16)[:4]
        loss = objective(model, volumes[chosen], labels[chosen], 0, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_an_epoch_learns():
    losses = learn(Classification(nn.CrossEntropyLoss()))
    assert losses[-1] < 0.5 * losses[0]


def test_mixup_keeps_the_targets_soft():
    mixup = VolumeMixup(mixup_alpha=1.0, label_smoothing=0.0, num_classes=2)
    soft, plain = learn(Classification(SoftTargetCrossEntropy(), mixup)), learn(Classification(nn.CrossEntropyLoss()))
    assert sum(soft[-12:]) > 2 * sum(plain[-12:])  # of many steps, since each one draws its own share


def objective_of(labels=(0, 0, 0, 1), **options):
    return classification(FinetuneTrainingOptions(**options), 2, list(labels), CPU)


def test_the_loss_is_what_the_options_ask_for():
    assert objective_of().criterion.weight is None
    assert objective_of(smoothing=0.25).criterion.label_smoothing == 0.25
    assert objective_of(class_weights="balanced").criterion.weight.tolist() == pytest.approx([4 / 6, 4 / 2])
    mixed = objective_of(mixup=0.8, cutmix=0.5)
    assert (mixed.mixup.mixup_alpha, mixed.mixup.cutmix_alpha) == (0.8, 0.5)
    assert objective_of().mixup is None


def test_mixed_labels_cannot_be_weighed_and_come_in_pairs():
    with pytest.raises(ValueError, match="use one of them"):
        objective_of(mixup=1.0, class_weights="balanced")
    with pytest.raises(ValueError, match="must be even"):
        objective_of(cutmix=1.0, batch_size=3)
