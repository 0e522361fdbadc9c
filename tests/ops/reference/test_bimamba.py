import pytest
import torch

from ops import bimamba_fn
from ops.reference.bimamba import one_by_one, side_by_side
from ops.reference.conv import causal_conv1d
from ops.reference.scan import selective_scan
from tests.helpers.ops_cases import assert_close, exact, forward_backward, mixer_tensors, on_directions


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_backends_agree_in_float64(backend: str):
    tensors = mixer_tensors(dtype=torch.float64)
    spec = on_directions(lambda *a: one_by_one(selective_scan, causal_conv1d, *a))
    expected = forward_backward(spec, tensors)
    assert_close(forward_backward(on_directions(bimamba_fn), tensors, backend=backend), expected, rtol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 21])
def test_side_by_side_is_one_by_one(length: int):
    tensors = mixer_tensors(length=length, dtype=torch.float64)
    kernels = selective_scan, causal_conv1d
    expected = forward_backward(on_directions(lambda *a: one_by_one(*kernels, *a)), tensors)
    actual = forward_backward(on_directions(lambda *a: side_by_side(*kernels, *a)), tensors)
    assert_close(actual, expected, rtol=1e-12)


def test_auto_takes_what_the_fused_kernels_do_not():
    tensors = mixer_tensors(dtype=torch.float64)
    assert_close(
        forward_backward(on_directions(bimamba_fn), tensors),
        forward_backward(on_directions(bimamba_fn), tensors, backend="reference"),
        rtol=1e-12,
    )
    wide = mixer_tensors(width=20)
    expected = forward_backward(on_directions(bimamba_fn), exact(wide), backend="reference")
    assert_close(forward_backward(on_directions(bimamba_fn), wide), expected, rtol=1e-5, dtype=False)


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match='unknown backend "fast"'):
        on_directions(bimamba_fn)(**mixer_tensors(), backend="fast")
