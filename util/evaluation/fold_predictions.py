"""Predictions of a trained classifier: on any volumes, and on the held-out part of a fold."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import nn

from util.data.dataset import PreparedVolumes
from util.distributed.world import World
from util.evaluation.predictions import Prediction, write_predictions
from util.options.groups import PrecisionName
from util.options.protocol import ProtocolOptions
from util.protocol.decision import Decision, calibrated, fit_decision
from util.protocol.division import Division
from util.protocol.tta import FlipAveraged
from util.run_folder import PREDICTIONS, RAW_PREDICTIONS
from util.training.eval_mode import evaluating
from util.training.loader import eval_loader
from util.training.optim import autocast

logger = logging.getLogger(__name__)


class LabelledProbabilities(NamedTuple):
    """Subjects, without those whose volumes cannot be used, with their labels and probabilities of class 1, (S,)
    each."""

    subjects: list[str]
    labels_S: np.ndarray
    probabilities_S: np.ndarray


@dataclass(frozen=True)
class FoldPredictor:
    """Predicts with the models of a cross-validation, each on the subjects that it was not trained on.

    volumes: those of all subjects of the cross-validation.
    """

    volumes: PreparedVolumes
    division: Division
    protocol: ProtocolOptions
    world: World
    batch_size: int
    precision: PrecisionName

    def probabilities(self, model: nn.Module, subjects: list[str]) -> LabelledProbabilities:
        """The model's probabilities for these subjects, with the protocol's test-time augmentation."""
        part = self.volumes.subset(subjects)
        predictor = FlipAveraged(model) if self.protocol.tta == "flip" else model
        predicted = predict(predictor, part, world=self.world, batch_size=self.batch_size, precision=self.precision)
        usable = [subject for subject in part.subjects if subject in predicted]
        labels_S = np.array([part.label(subject) for subject in usable])
        return LabelledProbabilities(usable, labels_S, np.array([predicted[subject] for subject in usable]))

    def predictions(self, model: nn.Module, fold: int) -> tuple[list[Prediction], Decision]:
        """The predictions of a fold's model on its test part, and the fold's decision. Temperature and threshold are
        fitted on the validation part, as far as the protocol asks for them."""
        protocol, subjects = self.protocol, self.division.folds[fold]
        fits_temperature, fits_threshold = protocol.calibrate == "temperature", protocol.threshold == "val"
        decision = Decision()
        if fits_temperature or fits_threshold:
            _, labels_S, probabilities_S = self.probabilities(model, subjects["val"])
            decision = fit_decision(
                labels_S, probabilities_S, fit_temperature=fits_temperature, fit_threshold=fits_threshold
            )
            logger.info("fold %d: temperature %.3f, threshold %.3f", fold, decision.temperature, decision.threshold)
        tested = self.probabilities(model, subjects["test"])
        calibrated_S = calibrated(tested.probabilities_S, decision.temperature)
        predictions = [
            Prediction(
                subject,
                fold,
                self.volumes.label(subject),
                float(probability),
                repeat=fold // self.division.k_fold,
                threshold=decision.threshold,
                patient=self.division.patients.get(subject, ""),
            )
            for subject, probability in zip(tested.subjects, calibrated_S, strict=True)
        ]
        return predictions, replace(decision, select=protocol.select, tta=protocol.tta)

    def write(self, folder: Path, fold: int, tested: nn.Module, raw: nn.Module | None) -> None:
        """Predict the test part of a fold, and write predictions.csv and decision.json to its folder. raw: the model
        with raw weights, if `tested` has averaged ones; its predictions become predictions_raw.csv."""
        raw_predictions = None if raw is None else self.predictions(raw, fold)[0]
        predictions, decision = self.predictions(tested, fold)
        if self.world.is_main:
            if raw_predictions is not None:
                write_predictions(folder / RAW_PREDICTIONS, raw_predictions)
            decision.save(folder)
            write_predictions(folder / PREDICTIONS, predictions)  # written last, because it marks the fold as finished


def predict(
    model: nn.Module,
    volumes: PreparedVolumes,
    *,
    world: World,
    batch_size: int,
    num_workers: int = 0,
    precision: PrecisionName = "fp32",
) -> dict[str, float]:
    """The probability of class 1 for every subject of `volumes`, on every rank. Each subject is computed on one rank
    only.

    With on_bad_volume="skip", subjects whose volumes cannot be used are left out. The model is in evaluation mode
    during the call and in its former mode afterwards.
    """
    own: list[tuple[str, float]] = []  # the subjects of this rank
    if subjects := volumes.subjects[world.rank :: world.size]:
        part, probabilities = volumes.subset(subjects), []
        with evaluating(model):
            for volume_BCZYX, _ in eval_loader(part, batch_size=batch_size, num_workers=num_workers):
                with autocast(world.device, precision):
                    logits_BK = model(volume_BCZYX.to(world.device))
                probabilities += logits_BK.float().softmax(-1)[:, 1].tolist()
        unusable = dict(part.stand_ins())  # a probability for a stand-in's volume is no prediction for the subject
        if unusable:
            logger.warning("left out of the evaluation, their volumes cannot be used: %s", ", ".join(unusable))
        own = [pair for pair in zip(subjects, probabilities, strict=True) if pair[0] not in unusable]
    return dict(sorted(world.gather(own)))
