"""A model is asked in evaluation mode and left in the modes it was in."""

import subprocess
import sys

import pytest
import torch

from tests.helpers.vis_cases import tiny_classifier
from util.training.eval_mode import evaluating


def test_every_module_returns_to_its_own_mode():
    model = tiny_classifier().train()
    model.head.eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
    assert model.training
    assert model.blocks.training
    assert not model.head.training
    assert torch.is_grad_enabled()


def test_modes_return_after_an_error():
    model = tiny_classifier().train()
    with pytest.raises(RuntimeError), evaluating(model):
        raise RuntimeError
    assert model.training


def test_pretraining_does_without_scikit_learn():
    code = "import main_pretrain, sys; print(*({'sklearn', 'scipy'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not loaded.strip()
