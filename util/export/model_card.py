"""The model card (README.md) of an exported folder, from its config.json, results.json and metrics. What they do not
record is written as "unknown"."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from util.evaluation.tables import format_cell
from util.hub.exported_folder import OURS
from util.patient.who_2021 import CLASS_NAMES, NOTICE

TEMPLATES = Path(__file__).resolve().parent / "templates"
UNKNOWN = "unknown"
TASKS = {"IDH": "IDH mutation", "1p19q": "1p/19q co-deletion"}
TITLES = {"mae": "Masked autoencoder", "ar": "Autoregressive model"}


def render_card(
    config: Mapping[str, Any],
    *,
    folds: Sequence[int],
    results: Mapping[str, Any] | None,
    metrics: Sequence[Mapping[str, Any]],
) -> str:
    """The card in Markdown, with the hub's front matter. config: the exported config.json; metrics: the rows of
    metrics.jsonl of a pre-training."""
    ours = config[OURS]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["known"] = known
    card = config["pretrained_cfg"]
    return environment.get_template("model_card.md").render(
        license=card["license"],
        title=_title(ours),
        notice=NOTICE,
        kind=ours["kind"],
        phantom=ours["data"].get("phantom") is True,
        control=_control(ours),
        model=_model(config),
        shape=", ".join(map(str, ("B", *card["input_size"]))),
        classes=config.get("label_names", []),
        folds=folds,
        fold=ours.get("fold"),
        data=_data(ours, results),
        training=_training(ours),
        scores=_scores(results),
        interval=_interval(results),
        by_fold=[[row["fold"], row["n"], _number(row.get("auc")), _number(row.get("accuracy"))]
                 for row in (results or {}).get("per_fold", [])],
        comparisons=_comparisons(results or {}),
        losses=_losses(ours, metrics),
        limits=_limits(ours, results, may_lack_contrasts=config["model_args"]["contrast_dropout"] > 0),
    )  # fmt: skip


def known(value: Any) -> str:
    """A value as the text of a table cell."""
    if value is None or value == "":
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def _title(ours: Mapping[str, Any]) -> str:
    if ours["kind"] == "finetune":
        return f"{TASKS.get(ours.get('label_type', ''), 'A label')} from multi-contrast brain MRI"
    return f"{TITLES.get(ours.get('objective', ''), 'Pre-trained encoder')} of multi-contrast brain MRI"


def _control(ours: Mapping[str, Any]) -> str | None:
    control = ours["args"].get("control")
    return None if control == "none" else control


def _model(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    ours, fields = config[OURS], config["model_args"]
    return [
        ("architecture", f"`{config['architecture']}`"),
        ("width, blocks, patch", f"{fields['embed_dim']}, {fields['depth']}, {fields['patch_size']}^3 voxels"),
        ("mixer", fields["mixer"] + (f", attention in blocks {known(fields['attention_layers'])}"
                                     if fields["attention_layers"] else "")),
        ("scan order", fields["scan_order"] or f"the default of fidelity {fields['fidelity']}"),
        ("fidelity", fields["fidelity"]),
        ("parameters", f"{ours['parameters']:,}"),
        ("weights", f"after epoch {known(ours.get('epoch'))}, counted from 0"
                    + (f", of fold {ours['fold']}" if "fold" in ours else "")),
    ]  # fmt: skip


def _data(ours: Mapping[str, Any], results: Mapping[str, Any] | None) -> list[tuple[str, Any]]:
    data, scores = ours["data"], results or {}
    preparation = data.get("preparation") or {}
    rows = [
        ("subjects", data.get("n_subjects", scores.get("n"))),
        ("simulated", data.get("phantom")),
        ("contrasts, in this order", data.get("contrasts")),
        ("normalisation", data.get("normalize")),
        ("preparation", ", ".join(f"{name} {known(value)}" for name, value in preparation.items())),
    ]
    if ours["kind"] == "finetune":
        names = CLASS_NAMES.get(ours.get("label_type", ""), (None, None))
        rows += [
            ("label", TASKS.get(ours.get("label_type", ""))),
            ("classes 0 and 1", names if all(names) else None),
            ("held-out subjects scored", scores.get("n")),
            ("of class 1", scores.get("n_positive")),
            ("subjects of unknown label, left out", scores.get("n_unknown", ours.get("n_unknown"))),
        ]
    return rows


def _training(ours: Mapping[str, Any]) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    if ours["kind"] == "finetune":
        rows.append(("started from", _start(ours.get("started_from"))))
    else:
        ratio = ours.get("mask_ratio")
        rows += [("objective", ours.get("objective")), ("mask ratio", ratio)]
    rows += [(f"`--{name}`", value) for name, value in sorted(ours["args"].items()) if value is not None]
    versions = ", ".join(f"{name} {value}" for name, value in ours.get("versions", {}).items() if value)
    return [
        *rows,
        ("computed on", ours.get("device")),
        ("processes", ours.get("ranks")),
        ("code", ours.get("git")),
        ("versions", versions),
    ]


def _start(start: Mapping[str, Any] | None) -> str:
    if start is None:
        return "random weights"
    if start.get("name"):
        return start["name"]
    if start.get("architecture") is None:
        return "pre-trained weights of unknown origin; not part of this folder"
    subjects = known(start["data"].get("n_subjects"))
    return (
        f"`{start['architecture']}`, objective {known(start.get('objective'))}, after epoch "
        f"{known(start.get('epoch'))}, {subjects} subjects; not part of this folder"
    )


def _interval(results: Mapping[str, Any] | None) -> str:
    statistics = (results or {}).get("statistics")
    if not statistics:
        return "confidence interval unknown"
    resamples = f"{statistics['resamples']} bootstrap resamples of {statistics['n_patients']} patients"
    return f"{statistics['confidence']:.0%} confidence interval by {resamples}"


def _scores(results: Mapping[str, Any] | None) -> list[list[str]]:
    """Rows metric, value, low, high."""
    if results is None:
        return []
    statistics = results.get("statistics")
    if not statistics:
        return [[_words(name), _number(value), UNKNOWN, UNKNOWN] for name, value in results["pooled"].items()]
    rows = [[_words(name), *_with_interval(row)] for name, row in statistics["pooled"].items()]
    return [*rows, ["auc (DeLong)", *(_number(statistics["delong"][key]) for key in ("auc", "low", "high"))]]


def _comparisons(results: Mapping[str, Any]) -> list[list[Any]]:
    """Rows name, subjects, AUC, low, high of the subgroups and the baselines."""
    rows = []
    for entry in [*results.get("subgroups", []), *results.get("baselines", [])]:
        statistics = entry["statistics"]
        rows.append([entry["name"], statistics["n"], *_with_interval(statistics["pooled"]["auc"])])
    return rows


def _losses(ours: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> list[tuple[str, Any]]:
    row = next((row for row in metrics if row["epoch"] == ours.get("epoch")), None)
    if row is None:
        return []
    return [
        ("training loss in that epoch", _number(row.get("train_loss"))),
        ("loss if each patch is predicted by its mean", _number(row.get("baseline_loss"))),
        ("confidence interval", "unknown: one run"),
    ]


def _limits(ours: Mapping[str, Any], results: Mapping[str, Any] | None, *, may_lack_contrasts: bool) -> list[str]:
    data = ours["data"]
    contrasts = known(data.get("contrasts"))
    limits = [
        f"Expects skull-stripped, co-registered contrasts ({contrasts}), prepared as in training."
        + ("" if may_lack_contrasts else " None may be missing."),
        "Trained on one cohort: its performance on other scanners, hospitals and patients is unknown.",
    ]
    if ours["kind"] == "finetune":
        if not results:
            limits.append("Its performance is unknown.")
        elif missing := results.get("missing_folds"):
            limits.append(f"Scores lack folds {known(missing)}, which had not run.")
        if ours["args"].get("calibrate") != "temperature":
            limits.append("Probabilities were not calibrated.")
        limits.append(
            "Features of held-out subjects are not published: predict.py cannot say how much a scan differs from them."
        )
    else:
        limits.append("Pre-trained only: it predicts no label before fine-tuning.")
    return limits


def _with_interval(row: Mapping[str, float | None]) -> list[str]:
    return [_number(row[key]) for key in ("value", "low", "high")]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float | None) -> str:
    return "not defined" if value is None else format_cell(float(value))
