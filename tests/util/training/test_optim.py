import math

import pytest
import torch
from torch import nn

from util.training.optim import Schedule, Stepper, autocast, build_optimizer, scaled_lr


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.A_log, self.head = nn.Linear(2, 2), nn.Parameter(torch.ones(2, 2)), nn.Linear(2, 1)

    def no_weight_decay(self):
        return {"A_log"}

    def group_matcher(self, coarse=False):
        return {"stem": r"^embed", "blocks": r"^(?:A_log)"}

    def forward(self, x):
        return self.head(self.embed(x) * self.A_log[0])


def test_learning_rate_follows_the_batch():
    assert scaled_lr(None, 1e-3, 4, 2, 4) == pytest.approx(1e-3 * 32 / 256)
    assert scaled_lr(1e-4, 1e-3, 4, 2, 4) == 1e-4


def test_undecayed_parameters():
    net = Net()
    optimizer = build_optimizer(net, lr=1.0, weight_decay=0.1, betas=(0.9, 0.95))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay[id(net.A_log)] == decay[id(net.head.bias)] == 0
    assert decay[id(net.head.weight)] == 0.1


@pytest.mark.parametrize("shape", ["constant", "cosine"])
def test_layer_decay_acts_with_and_without_scheduler(shape):
    net = Net()
    optimizer = build_optimizer(net, lr=1.0, weight_decay=0.1, betas=(0.9, 0.95), layer_decay=0.5)
    lr = Schedule(1.0, 0.0, 0, 10, shape).apply(optimizer, 0.0)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert lr == rates[id(net.head.weight)] == 1.0
    assert rates[id(net.embed.weight)] < rates[id(net.A_log)] < 1.0


def test_schedule_warms_up_then_follows_half_a_cosine():
    schedule = Schedule(lr=1.0, min_lr=0.1, warmup_epochs=2, epochs=10)
    assert [schedule(epoch) for epoch in (0, 1, 2)] == [0.0, 0.5, 1.0]
    assert schedule(6) == pytest.approx(0.1 + 0.9 * 0.5)
    assert schedule(10) == pytest.approx(0.1)


def test_clipping_limits_the_update():
    parameter = nn.Parameter(torch.zeros(2))
    stepper = Stepper(torch.optim.SGD([parameter], lr=1.0), torch.device("cpu"), "fp32", clip_grad=0.5)
    stepper.backward((parameter * torch.tensor([3.0, 4.0])).sum())
    assert float(stepper.step()) == pytest.approx(5.0)  # the norm before clipping
    assert float(parameter.detach().norm()) == pytest.approx(0.5, rel=1e-4)
    unlimited = Stepper(torch.optim.SGD([parameter], lr=1.0), torch.device("cpu"), "fp32", clip_grad=None)
    unlimited.backward(parameter.sum())
    assert float(unlimited.step()) == pytest.approx(math.sqrt(2))
    assert parameter.grad is None


def test_only_fp16_scales_the_loss():
    parameter = nn.Parameter(torch.zeros(1))
    for precision, enabled in (("fp32", False), ("bf16", False), ("fp16", True)):
        stepper = Stepper(torch.optim.SGD([parameter], lr=1.0), torch.device("cpu"), precision, None)
        assert stepper.scaler.is_enabled() == enabled
    with pytest.raises(ValueError, match="--precision int8"):
        Stepper(torch.optim.SGD([parameter], lr=1.0), torch.device("cpu"), "int8", None)


def test_autocast_type():
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with autocast(torch.device("cpu"), precision):
            assert layer(x).dtype == dtype
