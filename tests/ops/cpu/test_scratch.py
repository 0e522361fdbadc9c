"""Memory that operators use again: the same for the same name, its own for each thread, and never an output."""

import threading

import pytest
import torch

from ops import bimamba_fn
from ops.cpu import scratch
from tests.helpers.ops_cases import assert_outlives, forward_backward, mixer_tensors, on_directions, require_kernels

mixer = on_directions(bimamba_fn)


@pytest.fixture(autouse=True)
def _nothing_held():
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


def test_what_inference_made_serves_training():
    require_kernels()
    tensors = mixer_tensors(length=9, inner=20, states=5)
    with torch.inference_mode():
        value = mixer(**tensors)
    trained = forward_backward(mixer, tensors)
    torch.testing.assert_close(value, trained["out"], rtol=0, atol=0)


def test_results_outlive_the_next_call():
    require_kernels()
    tensors = mixer_tensors(length=9, inner=20, states=5)
    others = {name: x.detach().mul(0.5).requires_grad_() for name, x in tensors.items()}
    assert_outlives(mixer, tensors, others)
