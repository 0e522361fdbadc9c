import pytest

from tests.helpers.prepared import make_prepared
from util.options.build import as_json, make
from util.options.of_run import changes, changes_of_folds, parse, stored_runs
from util.options.pretrain import PretrainOptions
from util.runs import write_json


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("data"), count=2)


@pytest.fixture
def run(data, tmp_path):
    """A run folder with nothing but its config.json."""
    options = make(PretrainOptions, {"data": data, "seed": 7, "use_z_score": True, "model_kwargs": ("depth=2", "d=1")})
    config = {"kind": "pretrain", "data": {"root": str(data)}, "args": as_json(options)}
    write_json(tmp_path / "run" / "config.json", config)
    return tmp_path / "run"


def read(run, *words):
    return parse(PretrainOptions, ["--output_dir", str(run), *words], "", "pretrain")


def test_options_that_are_left_out_are_the_runs(run, data):
    assert read(run).run.seed == 0  # a new run
    options = read(run, "--resume", "auto")
    assert (options.run.seed, options.data.data, options.model.model_kwargs) == (7, data, ("depth=2", "d=1"))
    assert read(run, "--resume", "auto", "--save_freq", "3").run.save_freq == "3"
    assert read(run, "--overwrite", "--seed", "1").run.seed == 1


@pytest.mark.parametrize(
    "words",
    [["--normalize", "zscore"], ["--use_z_score"], ["--model_kwargs", "d=1", "depth=2"], ["--input_size", "160", "160",
     "160"], ["--override"]],
)  # fmt: skip
def test_the_same_choice_in_other_words_is_no_contradiction(run, words):
    assert changes(read(run, "--resume", "auto", *words), "pretrain") == {}


def test_a_contradiction_is_refused_by_name_unless_it_is_meant(run):
    with pytest.raises(ValueError, match=r"--normalize the default, not range; --seed 7, not 8: leave out --norm") as e:
        read(run, "--resume", "auto", "--seed", "8", "--normalize", "range")
    assert "--override" in str(e.value)
    options = read(run, "--resume", "auto", "--seed", "8", "--normalize", "range", "--override")
    assert changes(options, "pretrain") == {"seed": [7, 8], "normalize": [None, "range"]}
    assert changes_of_folds(options, [0]) == {}  # there are none


def test_the_papers_flag_against_a_run_of_another_normalisation(run, data):
    options = make(PretrainOptions, {"data": data, "normalize": "range"})
    write_json(run / "config.json", {"kind": "pretrain", "data": {"root": str(data)}, "args": as_json(options)})
    with pytest.raises(ValueError, match="was made with --use_z_score False, not True"):
        read(run, "--resume", "auto", "--use_z_score")


def test_data_that_were_moved_are_named_again(run, data, tmp_path, caplog):
    other = make_prepared(tmp_path / "other", count=2)
    with pytest.raises(ValueError, match=r"--data .*other"):
        read(run, "--resume", "auto", "--data", str(other))
    moved = data.rename(tmp_path / "moved")
    try:
        with pytest.raises(ValueError, match="which is no folder: name it with --data"):
            read(run, "--resume", "auto")
        assert read(run, "--resume", "auto", "--data", str(moved)).data.data == moved
        assert "which is gone" in caplog.text
    finally:
        moved.rename(data)


def test_runs_of_another_kind_and_without_options(run, caplog):
    values = {"output_dir": run, "resume": "auto"}
    with pytest.raises(ValueError, match=r"config\.json is of a pretrain run, not of a finetune run"):
        stored_runs(PretrainOptions, values, "finetune")
    write_json(run / "config.json", {"kind": "pretrain"})
    assert stored_runs(PretrainOptions, values, "pretrain") == []
    assert "does not record the options" in caplog.text
