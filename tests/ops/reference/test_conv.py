import torch

from tests.helpers.ops_cases import reference_conv


def test_convolution_by_hand():
    x = torch.tensor([[[1.0, 2.0, 3.0]]])
    weight, bias = torch.tensor([[10.0, 1.0]]), torch.tensor([0.5])
    out = reference_conv(x, weight, bias)
    assert out.flatten().tolist() == [1.5, 12.5, 23.5]
    assert reference_conv(x, weight, bias, reverse=True).flatten().tolist() == [21.5, 32.5, 3.5]
