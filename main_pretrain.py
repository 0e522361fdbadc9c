"""Pre-train on prepared volumes: a masked autoencoder, or the same network predicting the next patch of its scan.

python main_pretrain.py --model mae_3d_vim_small_patch16 --batch_size 4 --norm_pix_loss --output_dir runs/pretrain
python main_pretrain.py --model mae_3d_vim_small_patch16 --objective ar --scan_order hilbert --output_dir runs/ar
torchrun --nproc_per_node=4 main_pretrain.py ...        the same on several GPUs, or CPU processes
"""

import argparse
import logging
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from engine_pretrain import patch_mean_loss, pretrain_epoch
from models import AutoregressiveModel3D, PatchPredictor, create_model
from models.tokens.masking import count_kept
from ops import resample_affine_fn
from util import cli
from util.data.dataset import PreparedVolumes
from util.data.device_input import training_input
from util.data.stand_ins import report_stand_ins
from util.distributed.world import World
from util.files.locks import locked_by_main
from util.process.launch import launch
from util.process.stopping import StopRequest
from util.runs import device_name, start_run
from util.training import arguments
from util.training.data_failures import surviving
from util.training.fit import Inside, fit
from util.training.loader import eval_loader, seed_all, train_loader
from util.training.optim import Schedule, Stepper, build_optimizer, scaled_lr
from util.training.precision import precision_of_run
from util.training.record import Record
from util.training.state import Training, average_of
from vis.drawing.reconstruction import reconstruction_picture

logger = logging.getLogger(__name__)
MASK_RATIO = 0.75


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(description="Pre-train a 3D masked autoencoder, or an autoregressive model.")
    arguments.add_model_options(parser, "mae_3d_vim_small_patch16")
    parser.add_argument(
        "--objective",
        choices=("mae", "ar"),
        default="mae",
        help="mae: predict removed patches; ar: predict every patch from those before it in scan order",
    )
    parser.add_argument(
        "--mask_ratio", type=float, help=f"part of the patches that --objective mae removes; default {MASK_RATIO}"
    )
    parser.add_argument(
        "--masking",
        metavar="WAY",
        help="which patches --objective mae removes: random (default), block (cubes of neighbours) or grid (all but a "
        "regular lattice)",
    )
    parser.add_argument("--norm_pix_loss", action="store_true", help="reconstruct patches normalised one by one")
    arguments.add_data_options(parser)
    arguments.add_training_options(parser, epochs=1000, blr=2.5e-4, warmup_epochs=40, weight_decay=0.05)
    arguments.add_run_options(parser, "runs/pretrain")
    parser.add_argument(
        "--picture_freq", type=int, default=20, help="epochs between pictures in TensorBoard, 0 for none"
    )
    return parser.parse_args(argv)


def model_name(args: argparse.Namespace) -> str:
    """The registered name that --model and --objective mean together: for ar mae_3d_... stands for ar_3d_..."""
    return args.model.replace("mae_3d_", "ar_3d_", 1) if args.objective == "ar" else args.model


def mask_ratio(args: argparse.Namespace) -> float | None:
    """Part of the patches that is removed; None for the autoregressive objective, which has no use for a mask."""
    if args.objective == "mae":
        return MASK_RATIO if args.mask_ratio is None else args.mask_ratio
    for flag in ("mask_ratio", "masking"):
        if getattr(args, flag) is not None:
            raise ValueError(f"--{flag} {getattr(args, flag)}: --objective ar removes no patches; drop one of the two")
    return None


def build_model(args: argparse.Namespace) -> PatchPredictor:
    masking = {} if args.masking is None else {"masking": args.masking}
    fields = {"norm_pix_loss": args.norm_pix_loss, **masking, **arguments.model_fields(args)}
    model = create_model(model_name(args), **fields)
    if not isinstance(model, PatchPredictor):
        raise ValueError(
            f"--model {args.model} is a classifier; pre-training needs an autoencoder such as mae_3d_{args.model}"
        )
    if isinstance(model, AutoregressiveModel3D) and args.objective == "mae":
        raise ValueError(f"--model {args.model} is autoregressive: pass --objective ar, or choose a mae_3d_... model")
    return model


def resumed_run(args: argparse.Namespace) -> Path | None:
    """The folder of the run that --resume continues."""
    if args.resume is None:
        return None
    return Path(args.output_dir if args.resume == "auto" else Path(args.resume).parent)


def train(args: argparse.Namespace, world: World, stop: StopRequest) -> None:
    with stop, ExitStack() as held:
        pretrain(args, world, stop, held)


def pretrain(args: argparse.Namespace, world: World, stop: StopRequest, held: ExitStack) -> None:
    root = arguments.data_root(args, "BASE_PATH")
    volumes = PreparedVolumes(root, normalize=arguments.normalization(args), on_bad_volume=args.on_bad_volume)
    training_volumes, to_input = training_input(volumes, args.augment, resample_affine_fn, augment=not args.no_augment)
    arguments.check_size(volumes.size, arguments.image_size(args), root)
    loader = train_loader(
        training_volumes,
        batch_size=args.batch_size,
        world=world,
        seed=args.seed,
        num_workers=args.num_workers,
        pin_memory=args.pin_mem,
    )

    seed_all(args.seed)  # the same weights on every rank
    ratio = mask_ratio(args)
    model = build_model(args).to(world.device)
    tokens = model.config.tokens
    seen = tokens if ratio is None else count_kept(tokens, ratio)
    lr = scaled_lr(args.lr, args.blr, args.batch_size, args.accum_iter, world.size)
    optimizer = build_optimizer(model, lr=lr, weight_decay=args.weight_decay, betas=(0.9, 0.95))
    precision = precision_of_run(args.precision, world, resumed_run(args))
    stepper = Stepper(optimizer, world.device, precision.used, args.clip_grad)
    schedule = Schedule(lr, args.min_lr, args.warmup_epochs, args.epochs)
    config = {
        "kind": "pretrain",
        "model": {"name": model_name(args), "fields": asdict(model.config)},
        "data": volumes.describe(),
        "objective": args.objective,
        "mask_ratio": ratio,
        "device": device_name(world.device),
        "ranks": world.size,
        "precision": precision.plain(),
        "args": arguments.plain(args),
    }
    held.enter_context(locked_by_main(world, args.output_dir, "the run", "wait for it, or choose another --output_dir"))
    world.together(lambda: start_run(args.output_dir, config, resume=args.resume is not None, overwrite=args.overwrite))
    saving = arguments.save_options(args)
    training = Training(model, stepper, args.output_dir, config, world, average_of(model, args.ema), saving)
    training.resume(args.resume)
    log_dir = args.log_dir or args.output_dir
    record = Record(args.output_dir, log_dir, is_main=world.is_main, first_epoch=training.next_epoch)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    baseline = patch_mean_loss(model, eval_loader(volumes, batch_size=1, num_workers=0), world.device)
    logger.info(
        "%s: %d trainable parameters, %d tokens, %d of them seen; %d subjects, %d rank(s), lr %.3g; predicting each "
        "patch by its mean gives loss %.4f",
        model_name(args),
        trainable,
        tokens,
        seen,
        len(volumes),
        world.size,
        lr,
        baseline,
    )

    parallel = world.wrap(model)

    def run_epoch(epoch: int, inside: Inside) -> dict[str, float]:
        scalars = pretrain_epoch(
            parallel,
            loader,
            world=world,
            epoch=epoch,
            seed=args.seed,
            inside=inside,
            tokens=tokens,
            mask_ratio=ratio,
            to_input=to_input,
            stepper=stepper,
            schedule=schedule,
            accum_iter=args.accum_iter,
            ema=training.ema,
            record=record,
        )
        return {**scalars, "baseline_loss": baseline}

    def draw(epoch: int) -> None:
        if args.picture_freq and ((epoch + 1) % args.picture_freq == 0 or epoch + 1 == args.epochs):
            volume = volumes[0][0].unsqueeze(0).to(world.device)
            picture = reconstruction_picture(training.best_known, volume, mask_ratio=ratio, seed=args.seed)
            record.picture("input | masked | reconstruction", picture, epoch)

    fit(
        training,
        run_epoch,
        epochs=args.epochs,
        record=record,
        stop=stop,
        max_bad_steps=args.max_bad_steps,
        after_epoch=draw,
    )
    record.close()
    report_stand_ins(world.gather(training_volumes.stand_ins()))
    logger.info("pre-training done: %s", Path(args.output_dir) / f"checkpoint-{args.epochs - 1}.pth")


def main(argv: list[str] | None = None) -> None:
    launch(parse(argv), surviving(train))


if __name__ == "__main__":
    cli.run(main)
