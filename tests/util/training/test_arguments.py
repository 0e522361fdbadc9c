from pathlib import Path

import pytest

from util import cli
from util.training import arguments


def parse(*words):
    parser = cli.Parser()
    arguments.add_model_options(parser, "m")
    arguments.add_data_options(parser)
    arguments.add_training_options(parser, epochs=1, blr=1.0, warmup_epochs=0, weight_decay=0)
    arguments.add_run_options(parser, "out")
    return parser.parse_args(words)


def test_image_size_is_a_cube_or_three_sides():
    assert arguments.image_size(parse()) == (160, 160, 160)
    assert arguments.image_size(parse("--input_size", "8", "16", "24")) == (8, 16, 24)
    with pytest.raises(ValueError, match="--input_size takes one side or three"):
        arguments.image_size(parse("--input_size", "8", "16"))


def test_normalization_flags():
    assert arguments.normalization(parse()) == "zscore"
    assert arguments.normalization(parse("--use_z_score")) == "zscore"
    assert arguments.normalization(parse("--normalize", "zscore-joint")) == "zscore-joint"
    with pytest.raises(ValueError, match="contradict"):
        arguments.normalization(parse("--use_z_score", "--normalize", "range"))


def test_contrast_dropout_is_a_field_of_the_model_and_wants_contrasts_normalised_one_by_one():
    assert arguments.model_fields(parse())["contrast_dropout"] == 0
    assert arguments.model_fields(parse("--contrast_dropout", "0.3"))["contrast_dropout"] == 0.3
    with pytest.raises(ValueError, match=r"--contrast_dropout 0\.3 with --normalize zscore-joint.*--normalize zscore"):
        arguments.normalization(parse("--contrast_dropout", "0.3", "--normalize", "zscore-joint"))


def test_model_kwargs_are_values_not_strings():
    assert arguments.parse_model_kwargs(["depth=6", "mixer=mamba", "mlp_ratio=2.5"]) == {
        "depth": 6, "mixer": "mamba", "mlp_ratio": 2.5,
    }  # fmt: skip
    with pytest.raises(ValueError, match="FIELD=VALUE"):
        arguments.parse_model_kwargs(["depth"])


def test_the_dataset_name_is_a_section_of_config_ini(tmp_path):
    (tmp_path / "data").mkdir()
    ini = tmp_path / "config.ini"
    ini.write_text(f'[brats_160]\nBASE_PATH = "{tmp_path / "data"}"\n')
    args = parse("--config", str(ini), "--name_dataset", "brats-160")
    assert arguments.data_root(args, "BASE_PATH") == tmp_path / "data"
    assert arguments.data_root(parse("--data", str(tmp_path)), "BASE_PATH") == tmp_path
    with pytest.raises(ValueError, match="not a folder"):
        arguments.data_root(parse("--data", str(tmp_path / "no")), "BASE_PATH")
    with pytest.raises(ValueError, match="TEST_BASE_PATH"):
        arguments.data_root(args, "TEST_BASE_PATH")


def test_size_mismatch_says_what_to_pass():
    with pytest.raises(ValueError, match="pass --input_size 80"):
        arguments.check_size((80, 80, 80), (160, 160, 160), Path("data"))


def test_the_papers_spelling_of_no_pin_mem():
    assert parse("--no_pin_men").pin_mem is False
    assert parse("--pin_mem").pin_mem is True


def test_counts_must_be_positive(capsys):
    with pytest.raises(SystemExit):
        parse("--batch_size", "0")
    assert "at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--save_freq", "10s"], "write epochs, e.g. 20, or minutes"), (["--keep_last", "0"], "at least 1"),
     (["--on_save_error", "ignore"], "choose from"), (["--max_minutes", "0"], "above 0 minutes"),
     (["--max_minutes", "inf"], "above 0 minutes"), (["--rank_timeout", "-1"], "above 0 minutes"),
     (["--max_bad_steps", "-1"], "at least 0")],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_bad_values_name_the_flag_and_the_fix(words, message, capsys):
    with pytest.raises(SystemExit):
        parse(*words)
    error = capsys.readouterr().err
    assert f"argument {words[0]}" in error
    assert message in error


def test_save_options_are_those_of_the_command():
    options = arguments.save_options(parse("--save_freq", "10min", "--keep_last", "3", "--on_save_error", "continue"))
    assert (options.minutes, options.epochs, options.keep_last, options.on_error) == (10, None, 3, "continue")
    assert arguments.save_options(parse()).epochs == 20


def test_options_become_json_values():
    assert arguments.plain(parse("--data", "x"))["data"] == "x"
