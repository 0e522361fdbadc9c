import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers.prepared import make_prepared
from util.data.dataset import PreparedVolumes
from util.distributed.world import World
from util.evaluation.fold_predictions import FoldPredictor, predict
from util.evaluation.predictions import read_predictions
from util.options.protocol import ProtocolOptions
from util.protocol.decision import fit_decision, read_decision
from util.protocol.division import Division

WORLD = World(0, 1, torch.device("cpu"))


class Classifier(nn.Module):
    """What it says depends on the mirror image chosen; dropout shows the mode."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head, self.drop = nn.Linear(4, 2), nn.Dropout(0.9)

    def forward(self, volume):
        return self.head(self.drop(volume[..., :8].mean((2, 3, 4))))


@pytest.fixture
def volumes(tmp_path):
    labels = {f"sub-{i:02d}": i % 2 for i in range(12)}
    return PreparedVolumes(make_prepared(tmp_path), normalize="range", labels=labels)


def test_prediction_covers_every_subject_once_in_evaluation_mode(volumes):
    model = Classifier().train()
    model.head.eval()
    scored = predict(model, volumes, world=WORLD, batch_size=5)
    assert list(scored) == volumes.subjects
    assert (model.training, model.drop.training, model.head.training) == (True, True, False)
    model.eval()
    for subject, probability in list(scored.items())[:3]:
        volume = volumes[volumes.subjects.index(subject)][0]
        torch.testing.assert_close(torch.tensor(probability), model(volume[None]).softmax(-1)[0, 1].detach())


def test_ranks_share_the_subjects_without_overlap(volumes):
    model, shares = Classifier(), []
    for rank in range(3):
        world = World(rank, 3, torch.device("cpu"))
        object.__setattr__(world, "gather", lambda items: items)  # what this rank alone computed
        shares.append(predict(model, volumes, world=world, batch_size=2))
    assert sorted(name for share in shares for name in share) == volumes.subjects


def predictor(volumes, **protocol):
    names = volumes.subjects
    fold = {"train": names[8:], "val": names[4:8], "test": names[:4]}
    division = Division([fold, fold], {names[1]: "p1"}, 1, {})
    return FoldPredictor(volumes, division, ProtocolOptions(val_fraction=0.3, **protocol), WORLD, 2, "fp32")


def test_the_test_part_is_predicted_with_labels_fold_repeat_and_patient(volumes):
    model = Classifier()
    found, decision = predictor(volumes).predictions(model, 1)
    assert [p.subject for p in found] == volumes.subjects[:4]
    assert {(p.fold, p.repeat, p.threshold) for p in found} == {(1, 1, 0.5)}
    assert [p.label for p in found] == [0, 1, 0, 1]
    assert [p.patient for p in found] == ["", "p1", "", ""]
    expected = predict(model, volumes, world=WORLD, batch_size=4)
    assert [p.probability for p in found] == pytest.approx([expected[p.subject] for p in found])
    assert (decision.temperature, decision.threshold, decision.tta, decision.select) == (1.0, 0.5, "none", "last")


def test_temperature_and_threshold_come_from_the_validation_part(volumes):
    model = Classifier()
    plain, _ = predictor(volumes).predictions(model, 0)
    found, decision = predictor(volumes, calibrate="temperature", threshold="val", select="best_val").predictions(
        model, 0
    )
    _, labels, on_val = predictor(volumes).probabilities(model, volumes.subjects[4:8])
    expected = fit_decision(labels, on_val, fit_temperature=True, fit_threshold=True)
    assert (decision.temperature, decision.threshold) == (expected.temperature, expected.threshold)
    assert decision.temperature != 1
    assert decision.select == "best_val"
    assert {p.threshold for p in found} == {decision.threshold}
    odds = [np.log(p.probability / (1 - p.probability)) for p in plain]
    scaled = [np.log(p.probability / (1 - p.probability)) for p in found]
    assert scaled == pytest.approx([value / decision.temperature for value in odds])


def test_the_mirror_image_is_averaged_where_the_protocol_asks_for_it(volumes):
    model = Classifier()
    one, two = (predictor(volumes, tta=tta).probabilities(model, volumes.subjects) for tta in ("none", "flip"))
    assert one.subjects == two.subjects == volumes.subjects
    assert one.labels_S.tolist() == [i % 2 for i in range(12)]
    assert not np.allclose(one.probabilities_S, two.probabilities_S)


@pytest.mark.parametrize("with_raw", [True, False])
def test_a_fold_is_written_with_its_decision(volumes, tmp_path, with_raw):
    tested, raw, folder = Classifier(), Classifier(), tmp_path / "fold_1"
    nn.init.zeros_(raw.head.weight)
    nn.init.zeros_(raw.head.bias)
    one = predictor(volumes, calibrate="temperature")
    one.write(folder, 1, tested, raw if with_raw else None)
    predictions, decision = one.predictions(tested, 1)
    written = read_predictions(folder / "predictions.csv")
    assert [p.probability for p in written] == pytest.approx([p.probability for p in predictions], abs=1e-8)
    assert read_decision(folder, {}) == decision
    assert (folder / "predictions_raw.csv").exists() == with_raw
    if with_raw:
        assert {p.probability for p in read_predictions(folder / "predictions_raw.csv")} == {0.5}
