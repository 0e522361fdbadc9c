"""Temporary memory: one buffer per name and thread, and never part of an output."""

import threading

import pytest
import torch

from ops import bimamba_fn
from ops.cpu import scratch
from tests.helpers.ops_cases import (
    assert_unchanged_by_others,
    forward_backward,
    mixer_tensors,
    on_directions,
    require_kernels,
)

mixer = on_directions(bimamba_fn)


@pytest.fixture(autouse=True)
def _no_buffers():
    scratch.release()
    yield
    scratch.release()


def test_a_name_keeps_its_memory_and_grows():
    first = scratch.scratch("a", (3, 4), torch.float32)
    assert scratch.scratch("a", (3, 4), torch.float32) is first
    smaller = scratch.scratch("a", (2, 3), torch.bfloat16)
    assert (smaller.shape, smaller.dtype, smaller.data_ptr()) == ((2, 3), torch.bfloat16, first.data_ptr())
    assert scratch.scratch("a", (50, 60), torch.float32).fill_(1).sum() == 3000
    assert scratch.scratch("a", (0, 60), torch.float32).shape == (0, 60)


def test_names_and_threads_do_not_share():
    places = [scratch.scratch(name, (8,), torch.float32).data_ptr() for name in "ab"]
    thread = threading.Thread(target=lambda: places.append(scratch.scratch("a", (8,), torch.float32).data_ptr()))
    thread.start()
    thread.join()
    assert len(set(places)) == 3


def test_buffers_made_in_inference_mode_serve_training():
    require_kernels()
    tensors = mixer_tensors(length=9, inner=20, states=5)
    with torch.inference_mode():
        value = mixer(**tensors)
    trained = forward_backward(mixer, tensors)
    torch.testing.assert_close(value, trained["out"], rtol=0, atol=0)


def test_the_next_call_does_not_change_results():
    require_kernels()
    tensors = mixer_tensors(length=9, inner=20, states=5)
    others = {name: x.detach().mul(0.5).requires_grad_() for name, x in tensors.items()}
    assert_unchanged_by_others(mixer, tensors, others)
