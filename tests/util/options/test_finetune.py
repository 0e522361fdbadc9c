import pytest

from util.options.finetune import FinetuneModelOptions, FinetuneOptions, FinetuneRunOptions


def test_a_fold_is_resumed_from_its_own_checkpoints_only():
    assert FinetuneOptions(run=FinetuneRunOptions(resume="auto")).run.resume == "auto"
    with pytest.raises(ValueError, match=r"--resume x.pth: .*use --resume auto"):
        FinetuneOptions(run=FinetuneRunOptions(resume="x.pth"))


def test_both_tasks_have_two_classes():
    with pytest.raises(ValueError, match="--nb_classes 3: IDH has 2 classes"):
        FinetuneOptions(model=FinetuneModelOptions(nb_classes=3))
