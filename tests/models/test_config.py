import pytest

from models.config import ModelConfig, build_config, did_you_mean


def test_grids_follow_the_volume_axis_by_axis():
    config = build_config({"img_size": [32, 48, 64], "patch_size": 16, "in_chans": 2})
    assert (config.grid, config.tokens, config.patch_values) == ((2, 3, 4), 24, 16**3 * 2)
    assert build_config({"img_size": 32}).img_size == (32, 32, 32)
    with pytest.raises(ValueError, match="img_size"):
        build_config({"img_size": (32, 32)})


@pytest.mark.parametrize("patch", [4, 8, 16, 32])
def test_the_papers_token_counts(patch):
    assert ModelConfig(patch_size=patch).tokens == {4: 64_000, 8: 8_000, 16: 1_000, 32: 125}[patch]


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"img_size": (16, 20, 16), "patch_size": 8}, "Y=20 is not divisible"), ({"mixer": "lstm"}, "mixer"),
     ({"fidelity": "papr"}, "corrected, paper"), ({"drop_path_rate": 1.0}, "drop_path"), ({"depth": 0}, "at least 1"),
     ({"mixer": "attention", "num_heads": 5}, "num_heads=5"), ({"directions": "back"}, "both, forward"),
     ({"pool": "token"}, "mean, last, max"), ({"attention_layers": (3, 12)}, r"names block 12, .* 0\.\.11"),
     ({"mixer": "attention", "attention_layers": (3,)}, "needs scans"), ({"head_dim": 0}, "head_dim"),
     ({"contrast_dropout": 1.0}, r"contrast_dropout=1.0 must lie in \[0, 1\)"),
     ({"contrast_dropout": 0.2, "in_chans": 1}, "more than the one contrast")],
)  # fmt: skip
def test_impossible_values_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**{"img_size": (32, 32, 32), **fields})


def test_unknown_fields_name_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'drop_path_rate'"):
        build_config({"drop_path": 0.1})
    assert did_you_mean("qqq", ["depth"]) == "."


@pytest.mark.parametrize("layers", [(6, 3), [3, 6], (3, 6, 3)])
def test_attention_layers_become_a_sorted_tuple(layers):
    assert build_config({"attention_layers": layers}).attention_layers == (3, 6)
    assert build_config({"attention_layers": 3}).attention_layers == (3,)
    for wrong in ("3, 6", 3.5):
        with pytest.raises(ValueError, match="names block"):
            build_config({"attention_layers": wrong})
