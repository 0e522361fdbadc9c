from pathlib import Path

import pytest

from util.options.build import parse
from util.options.groups import DataOptions, ModelOptions, parse_model_kwargs
from util.options.pretrain import PretrainOptions


def options(*words):
    return parse(PretrainOptions, words, "")


def test_image_size_is_a_cube_or_three_sides():
    assert ModelOptions().image_size == (160, 160, 160)
    assert options("--input_size", "8", "16", "24").model.image_size == (8, 16, 24)
    with pytest.raises(ValueError, match="--input_size takes one side or three"):
        _ = ModelOptions(input_size=(8, 16)).image_size


def test_normalization_flags():
    assert options().data.normalization == "zscore"
    assert options("--use_z_score").data.normalization == "zscore"
    assert options("--normalize", "zscore-joint").data.normalization == "zscore-joint"
    with pytest.raises(ValueError, match="contradict"):
        options("--use_z_score", "--normalize", "range")


def test_contrast_dropout_is_a_field_of_the_model_and_needs_contrasts_normalised_one_by_one():
    assert options().model.model_fields()["contrast_dropout"] == 0
    assert options("--contrast_dropout", "0.3").model.model_fields()["contrast_dropout"] == 0.3
    with pytest.raises(ValueError, match=r"--contrast_dropout 0\.3 with --normalize zscore-joint.*--normalize zscore"):
        options("--contrast_dropout", "0.3", "--normalize", "zscore-joint")


def test_model_kwargs_are_values_not_strings():
    assert parse_model_kwargs(["depth=6", "mixer=mamba", "mlp_ratio=2.5"]) == {
        "depth": 6, "mixer": "mamba", "mlp_ratio": 2.5,
    }  # fmt: skip
    with pytest.raises(ValueError, match="FIELD=VALUE"):
        parse_model_kwargs(["depth"])
    assert options("--model_kwargs", "depth=6").model.model_fields()["depth"] == 6


def test_the_dataset_name_is_a_section_of_config_ini(tmp_path):
    (tmp_path / "data").mkdir()
    ini = tmp_path / "config.ini"
    ini.write_text(f'[brats_160]\nBASE_PATH = "{tmp_path / "data"}"\n')
    named = DataOptions(config=ini, name_dataset="brats-160")
    assert named.root("BASE_PATH") == tmp_path / "data"
    assert DataOptions(data=tmp_path).root("BASE_PATH") == tmp_path
    with pytest.raises(ValueError, match="not a folder"):
        DataOptions(data=tmp_path / "no").root("BASE_PATH")
    with pytest.raises(ValueError, match="TEST_BASE_PATH"):
        named.root("TEST_BASE_PATH")


def test_size_mismatch_says_what_to_pass():
    with pytest.raises(ValueError, match=r"pass --input_size 80$"):
        ModelOptions().check_size((80, 80, 80), Path("data"))
    with pytest.raises(ValueError, match="pass --input_size 80 80 96"):
        ModelOptions().check_size((80, 80, 96), Path("data"))
    ModelOptions(input_size=(80,)).check_size((80, 80, 80), Path("data"))


def test_the_papers_spelling_of_no_pin_mem():
    assert options("--no_pin_men").data.pin_mem is False
    assert options("--no_pin_mem").data.pin_mem is False
    assert options("--pin_mem").data.pin_mem is True


@pytest.mark.parametrize("text", ["0", "-1", "0min", "10 min", "1.5", "min", "10s", "nan"])
def test_what_is_no_time_is_refused(text, capsys):
    with pytest.raises(SystemExit):
        options(f"--save_freq={text}")
    assert "write epochs, e.g. 20, or minutes, e.g. 10min" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch_size", "0"], "from 1 to"),
        (["--keep_last", "0"], "from 1 to"),
        (["--on_save_error", "ignore"], "choose from"),
        (["--max_minutes", "0"], "above 0 and at most 5,270,400 minutes"),
        (["--max_minutes", "inf"], "above 0 and at most 5,270,400 minutes"),
        (["--rank_timeout", "-1"], "above 0 and at most 5,270,400 minutes"),
        (["--max_bad_steps", "-1"], "from 0 to"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_bad_values_name_the_flag_and_the_fix(words, message, capsys):
    with pytest.raises(SystemExit):
        options(*words)
    error = capsys.readouterr().err
    assert f"argument {words[0]}" in error
    assert message in error
