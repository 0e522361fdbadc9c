"""Compare pre-trained checkpoints by probes of their frozen features, in the same folds.

python probe.py --checkpoints runs/a/checkpoint-99.pth runs/b/checkpoint-99.pth random --data DIR
python probe.py ... --layers 3 7 11 --folds_from runs/idh/folds.json     some layers, the folds of a fine-tuning run

Features are computed once per checkpoint and cached in OUTPUT_DIR/features.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from models import create_model
from models.adapt import describe
from models.encoder import VolumeEncoder
from util import cli, ranges
from util.checkpoint.facts import fidelity_of, recorded
from util.checkpoint.files import checkpoint_file
from util.checkpoint.loading import load_pretrained, read_checkpoint
from util.checkpoint.matching import is_published, registry_name
from util.data.cohort import Cohort, load_cohort
from util.data.dataset import PreparedVolumes
from util.data.folder import CONTRASTS, LABEL_SHEET
from util.data.normalize import Normalize
from util.distributed.world import choose_device
from util.evaluation.predictions import Prediction
from util.hub.download import pinned
from util.options.build import plain_values
from util.probing.features import POOLS, cached, extract_features, file_hash, state_of_volumes
from util.probing.probes import PROBES, fit_and_score
from util.probing.results import ProbeRow, write_probe_results
from util.protocol.folds import Fold, fold_hash, load_folds, make_folds, save_folds
from util.run_folder import CONFIG, FOLDS, RESULTS
from util.runs import read_config, start_run
from util.training.loader import seed_all

logger = logging.getLogger(__name__)
RANDOM = "random"
K_FOLD = 5


@dataclass(frozen=True)
class Source:
    """One entry of --checkpoints: its model, and the normalisation and contrasts that its encoder expects. path: None
    for random weights."""

    title: str
    path: Path | None
    name: str
    fields: dict[str, Any]
    normalize: Normalize
    contrasts: tuple[str, ...]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(description="Compare checkpoints by kNN and logistic regression on their frozen features.")
    parser.add_argument(
        "--checkpoints",
        nargs="+",
        required=True,
        metavar="FILE",
        help=f'pre-trained weights: {cli.WEIGHTS_FROM}; "{RANDOM}" is the first model with random weights',
    )
    parser.add_argument("--layers", nargs="+", default=["last"], metavar="N", help='block numbers, from 0, or "last"')
    parser.add_argument(
        "--pool", choices=tuple(POOLS), default="mean", help="how the tokens of a volume become one vector"
    )
    parser.add_argument("--data", type=Path, required=True, help="prepared folder with labels")
    parser.add_argument("--label_type", choices=("IDH", "1p19q"), default="IDH", help="column of the label sheet")
    parser.add_argument("--labels", type=Path, help=f"label sheet; default {LABEL_SHEET} in the data folder")
    folds = parser.add_mutually_exclusive_group()
    folds.add_argument("--k_fold", type=ranges.Whole(2, 1000), help=f"number of folds to make; default {K_FOLD}")
    folds.add_argument("--folds_from", type=Path, help="folds.json of a fine-tuning run, or its folder")
    parser.add_argument("--seed", type=ranges.seed, default=0, help="seed of folds, inner folds and random weights")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("runs/probe"), help="folder of results and cached features"
    )
    return parser.parse_args(argv)


def read_sources(entries: Sequence[str], data: Path) -> list[Source]:
    """The sources of --checkpoints, in order."""
    if len(set(entries)) < len(entries):
        raise ValueError(f"--checkpoints {' '.join(entries)}: one is given twice; give each once")
    sources = {entry: read_source(Path(entry), data) for entry in entries if entry != RANDOM}
    if not sources:
        raise ValueError(f"--checkpoints {RANDOM} takes its model from a checkpoint: give one with it")
    first = next(iter(sources.values()))
    title = f"{RANDOM} ({first.name})"
    sources[RANDOM] = Source(title, None, first.name, first.fields, first.normalize, first.contrasts)
    return [sources[entry] for entry in entries]


def read_source(path: Path, data: Path) -> Source:
    """The model and data settings of a checkpoint. Raises ValueError if its model is unknown, and for a classifier that
    was trained on the labels that the probe is to predict."""
    content = read_checkpoint(path)
    name = registry_name(content)
    if name.value is None:
        raise ValueError(f"--checkpoints {path}: its model is {name.how}; use a checkpoint of main_pretrain.py")
    root = recorded(content, "data", "root")
    if recorded(content, "kind") == "finetune" and root and Path(root).resolve() == data.resolve():
        raise ValueError(
            f"--checkpoints {path} was fine-tuned with labels of {data}, so its features contain the answers: give the "
            "pre-training checkpoint that it started from"
        )
    if recorded(content, "kind") == "finetune" and root is None:
        logger.warning(
            "%s was fine-tuned with labels of data that it does not record: if they are those of %s, its features "
            "contain the answers",
            path,
            data,
        )
    fields = recorded(content, "model", "fields") or {
        "fidelity": fidelity_of(content, describe(content["model"])).value or "corrected"
    }
    normalize = recorded(content, "data", "normalize")
    if normalize not in get_args(Normalize):
        normalize = "zscore-joint" if is_published(content) else "zscore"
        logger.info("%s does not record its normalisation: taken to be %s", path, normalize)
    contrasts = tuple(recorded(content, "data", "contrasts") or CONTRASTS)
    return Source(str(path), path, name.value, dict(fields), normalize, contrasts)


def create_encoder(source: Source, size: tuple[int, int, int]) -> VolumeEncoder:
    """The source's model, for volumes of `size`, without its weights."""
    model = create_model(source.name, **{**source.fields, "img_size": size})
    assert isinstance(model, VolumeEncoder)
    return model


def chosen_layers(layers: Sequence[str], depth: int) -> list[int]:
    """The block numbers that --layers selects, in ascending order."""
    numbers = {str(depth - 1) if layer == "last" else layer for layer in layers}
    if not all(number.isdecimal() and int(number) < depth for number in numbers):
        raise ValueError(f'--layers {" ".join(layers)}: choose from 0 to {depth - 1}, or "last"')
    return sorted(map(int, numbers))


def folds_of_run(folds_from: Path, labels: dict[str, int], label_type: str) -> list[Fold]:
    """The folds of a fine-tuning run, given as its folder or its folds.json."""
    path = folds_from / FOLDS if folds_from.is_dir() else folds_from
    if not path.is_file():
        raise ValueError(f"--folds_from {folds_from}: there is no folds.json; give a fine-tuning run, or use --k_fold")
    return load_folds(path, labels, label_type, remedy="give another file with --folds_from, or use --k_fold")


def probe_source(
    source: Source,
    cohort: Cohort,
    folds: list[Fold],
    *,
    layers: Sequence[str],
    pool: str,
    seed: int,
    device: str,
    cache: Path,
) -> list[ProbeRow]:
    """The rows of every layer and probe of one source. cache: folder of the cached features."""
    root = cohort.volumes.root
    volumes = PreparedVolumes(
        root, contrasts=source.contrasts, normalize=source.normalize, subjects=list(cohort.labels)
    )
    with torch.device("meta"):
        config = create_encoder(source, volumes.size).config
    numbers = chosen_layers(layers, config.depth)
    depends_on = {
        "weights": f"random, seed {seed}" if source.path is None else file_hash(checkpoint_file(source.path)),
        "model": [source.name, asdict(config)],
        "layers": numbers,
        "pool": pool,
        "data": [str(root.resolve()), state_of_volumes(volumes)],
        "normalize": source.normalize,
    }

    def compute() -> np.ndarray:
        seed_all(seed)
        model = create_encoder(source, volumes.size)
        if source.path is not None:
            load_pretrained(model, source.path)
        return extract_features(model, volumes, numbers, pool=pool, device=device)

    logger.info("%s: features of %d subjects", source.title, len(volumes))
    features = cached(cache, depends_on, compute)
    place = {subject: index for index, subject in enumerate(volumes.subjects)}
    rows = []
    for position, layer in enumerate(numbers):
        for name, probe in PROBES.items():
            chosen, predictions = [], []
            for number, fold in enumerate(folds):
                train, test = (features[[place[s] for s in fold[part]], position] for part in ("train", "test"))
                labels = [cohort.labels[subject] for subject in fold["train"]]
                probabilities, settings = fit_and_score(probe, train, labels, test, seed=seed)
                chosen.append(settings)
                predictions += [
                    Prediction(subject, number, cohort.labels[subject], float(probability))
                    for subject, probability in zip(fold["test"], probabilities, strict=True)
                ]
            rows.append(ProbeRow(source.title, layer, name, chosen, predictions))
    return rows


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    cli.setup_logging()
    device = choose_device(args.device)
    if not args.data.is_dir():
        raise ValueError(f"--data {args.data} is not a folder")
    if (args.output_dir / CONFIG).exists() and read_config(args.output_dir).get("kind") != "probe":
        raise ValueError(f"--output_dir {args.output_dir} holds a run of another program: choose another folder")
    sources = read_sources(args.checkpoints, args.data)
    cohort = load_cohort(args.data, args.label_type, sheet=args.labels, normalize=sources[0].normalize)
    if args.folds_from is None:
        folds = make_folds(cohort.labels, args.k_fold or K_FOLD, args.seed)
    else:
        folds = folds_of_run(args.folds_from, cohort.labels, args.label_type)
    config = {"kind": "probe", "sources": [asdict(source) for source in sources], "args": plain_values(vars(args))}
    for source in config["sources"]:
        source["path"] = source["path"] and pinned(source["path"])
    start_run(args.output_dir, config, resume=True, overwrite=False)  # another call adds features to the cache
    save_folds(args.output_dir / FOLDS, folds, label_type=args.label_type, seed=args.seed)
    cache, rows = args.output_dir / "features", []
    for source in sources:
        rows += probe_source(
            source, cohort, folds, layers=args.layers, pool=args.pool, seed=args.seed, device=device, cache=cache
        )
    table = write_probe_results(
        args.output_dir,
        rows,
        label_type=args.label_type,
        n_unknown=cohort.n_unknown,
        k_fold=len(folds),
        folds_hash=fold_hash(folds),
    )
    logger.info("%s: %d subjects in %d folds\n%s", args.label_type, len(cohort.labels), len(folds), table)
    logger.info("results: %s", args.output_dir / RESULTS)


if __name__ == "__main__":
    cli.run(main)
