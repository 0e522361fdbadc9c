import pytest
import torch

from models.masking import random_mask


def test_keeps_the_tokens_of_smallest_noise_in_raster_order():
    mask = random_mask(torch.tensor([[0.5, 0.1, 0.9, 0.2]]), 0.5, ascending=True)
    assert mask.ids_keep.tolist() == [[1, 3]]
    assert mask.removed().tolist() == [[1, 0, 1, 0]]


def test_the_papers_order_follows_the_noise():
    assert random_mask(torch.tensor([[0.5, 0.2, 0.9, 0.1]]), 0.5, ascending=False).ids_keep.tolist() == [[3, 1]]


def test_the_float_product_decides_the_count():
    assert random_mask(torch.rand(1, 1000), 0.9, ascending=True).ids_keep.shape == (1, 99)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, 0.99])
def test_a_ratio_that_leaves_nothing_is_refused(ratio):
    with pytest.raises(ValueError, match="mask_ratio"):
        random_mask(torch.rand(1, 10), ratio, ascending=True)
