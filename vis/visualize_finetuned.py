"""Write latent and class-specific maps of a fine-tuned classifier, for held-out subjects of a fold.

    python vis/visualize_finetuned.py                           the newest fine-tuning run, fold 0, two subjects
    python vis/visualize_finetuned.py --run runs/finetune --fold 3 --subjects EGD-0101 --map max gradient --viewer

Files of each subject, in RUN/vis/fold_K/SUBJECT: maps (.npy, .nii.gz on the prepared grid and in patient space, .png).
"""

import argparse
import logging
import sys
from pathlib import Path

if __package__ in (None, ""):  # started as a script, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tqdm import tqdm

from models import VolumeClassifier
from util import cli, ranges
from util.evaluation.predictions import held_out_predictions
from util.inference.open_run import choose_subjects, open_run
from util.protocol.held_out import check_held_out, held_out, read_folds
from util.run_folder import MAPS, fold_name
from util.runs import newest_run
from vis.drawing.wording import prediction_caption
from vis.export.map_files import MapWriter, output_folder, requested_spaces
from vis.maps.registry import MapOptions, compute_maps
from vis.options import add_map_options

logger = logging.getLogger(__name__)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(description="Latent and class-specific maps of a fine-tuned classifier, for held-out subjects.")
    add_map_options(parser, classes=True)
    parser.add_argument("--fold", type=ranges.count, default=0, help="fold of the model and of the held-out subjects")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    cli.setup_logging()
    run = args.run or newest_run(kind="finetune")
    folds = read_folds(run)
    allowed = held_out(folds, args.fold)
    check_held_out(args.subjects, folds, args.fold)
    subjects = choose_subjects(args.subjects, allowed)
    opened = open_run(
        run,
        "finetune",
        checkpoint=args.checkpoint,
        fold=args.fold,
        data=args.data,
        device=args.device,
        fidelity=args.fidelity,
    )
    model, labels = opened.model, held_out_predictions(run)
    assert isinstance(model, VolumeClassifier)
    folder = output_folder(args.out, run, MAPS, fold_name(args.fold))
    spaces = requested_spaces(opened.data.root, args.space)
    writer = MapWriter(folder, args.upsample, spaces, args.mosaic, args.viewer)
    for subject in tqdm(subjects, desc="subjects", disable=not sys.stderr.isatty()):
        study = opened.study(subject)
        volume_BCZYX = opened.batch(study)
        probability = opened.probability(volume_BCZYX)
        subtitle = prediction_caption(opened.config["label_type"], labels.get(subject), probability, args.fold)
        target = opened.predicted_class(probability) if args.target is None else args.target
        options = MapOptions(args.block, target, args.steps, args.window, args.batch_size)
        maps, notes = {}, {}
        for name, spatial in compute_maps(model, volume_BCZYX, args.map, options).items():
            maps[name], completeness = spatial.first()
            if completeness is not None:
                completeness.warn(subject)
                notes[name] = str(completeness)
        writer.write(study, opened.data.affine(subject), maps, subtitle=subtitle, notes=notes)
    logger.info("%d subject(s) written to %s", len(subjects), folder)


if __name__ == "__main__":
    cli.run(main)
