"""Pre-train a masked autoencoder on prepared volumes.

python main_pretrain.py --model mae_3d_vim_small_patch16 --batch_size 4 --norm_pix_loss --output_dir runs/pretrain
torchrun --nproc_per_node=4 main_pretrain.py ...        the same on several GPUs, or CPU processes
"""

import argparse
import logging
from dataclasses import asdict
from pathlib import Path

from engine_pretrain import patch_mean_loss, pretrain_epoch
from models import MaskedAutoencoder3D, create_model
from util import arguments, cli
from util.data.dataset import PreparedVolumes
from util.data.device_input import training_input
from util.distributed import World
from util.launch import launch
from util.loader import eval_loader, seed_all, train_loader
from util.optim import Schedule, Stepper, build_optimizer, scaled_lr
from util.record import Record
from util.runs import device_name, start_run
from util.training import Training, average_of, fit
from vis.reconstruct import reconstruction_picture

logger = logging.getLogger(__name__)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(description="Pre-train a 3D masked autoencoder.")
    arguments.add_model_options(parser, "mae_3d_vim_small_patch16")
    parser.add_argument("--mask_ratio", type=float, default=0.75, help="part of the patches that is removed")
    parser.add_argument("--norm_pix_loss", action="store_true", help="reconstruct patches normalised one by one")
    arguments.add_data_options(parser)
    arguments.add_training_options(parser, epochs=1000, blr=2.5e-4, warmup_epochs=40, weight_decay=0.05)
    arguments.add_run_options(parser, "runs/pretrain")
    parser.add_argument(
        "--picture_freq", type=int, default=20, help="epochs between pictures in TensorBoard, 0 for none"
    )
    return parser.parse_args(argv)


def build_mae(args: argparse.Namespace) -> MaskedAutoencoder3D:
    model = create_model(args.model, norm_pix_loss=args.norm_pix_loss, **arguments.model_fields(args))
    if not isinstance(model, MaskedAutoencoder3D):
        raise ValueError(
            f"--model {args.model} is a classifier; pre-training needs an autoencoder such as mae_3d_{args.model}"
        )
    return model


def train(args: argparse.Namespace, world: World) -> None:
    root = arguments.data_root(args, "BASE_PATH")
    volumes = PreparedVolumes(root, normalize=arguments.normalization(args))
    training_volumes, to_input = training_input(volumes, args.augment, augment=not args.no_augment)
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
    mae = build_mae(args).to(world.device)
    lr = scaled_lr(args.lr, args.blr, args.batch_size, args.accum_iter, world.size)
    optimizer = build_optimizer(mae, lr=lr, weight_decay=args.weight_decay, betas=(0.9, 0.95))
    stepper = Stepper(optimizer, world.device, args.precision, args.clip_grad)
    schedule = Schedule(lr, args.min_lr, args.warmup_epochs, args.epochs)
    config = {
        "kind": "pretrain",
        "model": {"name": args.model, "fields": asdict(mae.config)},
        "data": volumes.describe(),
        "mask_ratio": args.mask_ratio,
        "device": device_name(world.device),
        "ranks": world.size,
        "args": arguments.plain(args),
    }
    if world.is_main:
        start_run(args.output_dir, config, resume=args.resume is not None, overwrite=args.overwrite)
    world.barrier()
    training = Training(mae, stepper, args.output_dir, config, average_of(mae, args.ema))
    first_epoch = training.resume(args.resume)
    record = Record(args.output_dir, args.log_dir or args.output_dir, is_main=world.is_main, first_epoch=first_epoch)
    trainable = sum(p.numel() for p in mae.parameters() if p.requires_grad)
    baseline = patch_mean_loss(mae, eval_loader(volumes, batch_size=1, num_workers=0), world.device)
    logger.info(
        "%s: %d trainable parameters, %d tokens, %d of them seen; %d subjects, %d rank(s), lr %.3g; predicting each "
        "patch by its mean gives loss %.4f",
        args.model,
        trainable,
        mae.config.tokens,
        int(mae.config.tokens * (1 - args.mask_ratio)),
        len(volumes),
        world.size,
        lr,
        baseline,
    )

    parallel = world.wrap(mae)

    def run_epoch(epoch: int) -> dict[str, float]:
        scalars = pretrain_epoch(
            parallel,
            loader,
            world=world,
            epoch=epoch,
            seed=args.seed,
            tokens=mae.config.tokens,
            mask_ratio=args.mask_ratio,
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
            picture = reconstruction_picture(training.best_known, volume, mask_ratio=args.mask_ratio, seed=args.seed)
            record.picture("input | masked | reconstruction", picture, epoch)

    fit(
        training,
        run_epoch,
        first_epoch=first_epoch,
        epochs=args.epochs,
        save_freq=args.save_freq,
        world=world,
        record=record,
        after_epoch=draw,
    )
    record.close()
    logger.info("pre-training done: %s", Path(args.output_dir) / f"checkpoint-{args.epochs - 1}.pth")


def main(argv: list[str] | None = None) -> None:
    launch(parse(argv), train)


if __name__ == "__main__":
    cli.run(main)
