import pytest

from util.options.pretrain import MASK_RATIO, PretrainModelOptions, PretrainOptions


def test_the_objective_decides_the_model_and_what_is_removed():
    mae = PretrainModelOptions(model="mae_3d_vim_tiny_patch8")
    assert (mae.registered_name, mae.removed_part) == ("mae_3d_vim_tiny_patch8", MASK_RATIO)
    assert PretrainModelOptions(mask_ratio=0.5).removed_part == 0.5
    ar = PretrainModelOptions(model="mae_3d_vim_tiny_patch8", objective="ar")
    assert (ar.registered_name, ar.removed_part) == ("ar_3d_vim_tiny_patch8", None)


@pytest.mark.parametrize("options", [{"mask_ratio": 0.5}, {"masking": "grid"}])
def test_an_autoregressive_model_removes_no_patches(options):
    PretrainOptions(model=PretrainModelOptions(**options))
    with pytest.raises(ValueError, match=r"--objective ar removes no patches; drop one of the two"):
        PretrainOptions(model=PretrainModelOptions(objective="ar", **options))
