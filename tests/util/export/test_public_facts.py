"""Only listed facts are published; everything else that a run records stays private."""

import json

from util.export.public_facts import OPTIONS, public_config, public_results


def test_a_config_keeps_what_is_listed_and_nothing_else():
    said = public_config({
        "kind": "finetune", "label_type": "IDH", "command": ["main.py", "--data", "/home/a"], "machine": "host",
        "finetune": "/a/checkpoint-1.pth", "args": {"lr": 0.1, "data": "/a", "tta": "flip", "select": "/a"},
        "data": {"root": "/a", "labels": "/a.xlsx", "normalize": "zscore", "preparation": {"size": [8], "by": "a"}},
        "model": {"name": "m", "fields": {}},
        "precision": {"asked": "bf16", "used": "fp32", "factor": 6.0, "cpu": "a CPU"},
    })  # fmt: skip
    assert said == {
        "kind": "finetune", "label_type": "IDH", "args": {"lr": 0.1, "tta": "flip"},
        "data": {"normalize": "zscore", "preparation": {"size": [8]}},
        "precision": {"asked": "bf16", "used": "fp32"},
    }  # fmt: skip
    assert public_config({"kind": "pretrain"}) == {"kind": "pretrain", "args": {}, "data": {}}


def test_results_keep_scores_of_groups_only(hub_runs):
    results = json.loads((hub_runs / "idh" / "results.json").read_text())
    said = public_results(results)
    assert said["statistics"] == results["statistics"]
    assert said["per_fold"] == results["per_fold"]
    assert said["protocol"]["calibrate"] == "temperature"
    assert "folds_csv" in results["protocol"]
    assert "folds_csv" not in said["protocol"]
    assert [entry["name"] for entry in said["baselines"]] == [entry["name"] for entry in results["baselines"]]
    assert all("features" in entry for entry in results["baselines"])
    assert not any("features" in entry for entry in said["baselines"])


def test_no_listed_option_is_a_path():
    from util.options.build import list_options
    from util.options.finetune import FinetuneOptions

    private = {"config", "data", "finetune", "folds_csv", "labels", "log_dir", "output_dir", "resume", "group_by",
               "stratify_by", "name_dataset", "model_kwargs"}  # fmt: skip
    assert private <= {one.name for one in list_options(FinetuneOptions)}
    assert not private & set(OPTIONS)
