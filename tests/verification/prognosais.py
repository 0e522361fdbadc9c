"""The published predictions of PrognosAIs for its test set have the AUC that its authors report.

van der Voort et al., Neuro-Oncology 2022 (noac166): AUC 0.90 for IDH mutation and 0.85 for 1p/19q co-deletion.
"""

import csv

import numpy as np

from tests.verification.options import Options
from tests.verification.tally import Skipped, Tally
from util.evaluation.predictions import Prediction, arrange
from util.statistics.delong import delong_interval
from util.statistics.metrics import classification_metrics

PUBLISHED = {
    "IDH_mutated": ("Prediction_score_IDH_mutated", 0.90),
    "1p19q_codeleted": ("Prediction_score_1p19q_codeleted", 0.85),
}
UNKNOWN = -1


def run(options: Options) -> Tally:
    if options.source is None:
        raise Skipped("--source of Svdvoort/PrognosAIs_glioma is not given")
    path = options.source / "Supplementary_data/test_predictions.csv"
    if not path.is_file():
        raise Skipped(f"{path} is missing: is --source the root of the right source tree?")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    tally = Tally()
    for label, (score, published) in PUBLISHED.items():
        known = [row for row in rows if row[label] and float(row[label]) != UNKNOWN]
        labels, scores = (np.array([float(row[column]) for row in known]) for column in (label, score))
        labels = labels.astype(int)
        auc = classification_metrics(labels, scores)["auc"]
        predictions = [Prediction(str(i), 0, int(y), float(p)) for i, (y, p) in enumerate(zip(labels, scores))]
        area = delong_interval(arrange(predictions))
        tally.count(f"{label}: AUC {auc:.4f}, published {published:.2f}", round(auc, 2) == published)
        tally.near(f"{label}: AUC by DeLong's pairs", {"AUC": (area.auc, auc)}, atol=1e-12)
        tally.notes.append(
            f"{label}: AUC {auc:.4f} (95% interval {area.low:.3f} to {area.high:.3f}) of {len(known)} patients, "
            f"published {published:.2f}."
        )
    return tally
