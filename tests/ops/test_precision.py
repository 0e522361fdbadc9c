import torch

from ops.precision import below_autocast, compute_dtype, without_autocast


def test_states_are_float32_at_least():
    dtypes = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
    computed = [compute_dtype(torch.zeros(1, dtype=dtype)) for dtype in dtypes]
    assert computed == [torch.float32, torch.float32, torch.float32, torch.float64]


def test_autocast_is_off_inside_and_on_again_after():
    x = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with without_autocast(x):
            assert (x @ x).dtype == torch.float32
        assert (x @ x).dtype == torch.bfloat16
        assert below_autocast(torch.mm)(x, x).dtype == torch.float32


def test_meta_tensors_have_no_autocast():
    with without_autocast(torch.ones(2, device="meta")) as nothing:
        assert nothing is None
