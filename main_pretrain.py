"""Pre-train on prepared volumes: a masked autoencoder, or the same network predicting the next patch of its scan.

python main_pretrain.py --model mae_3d_vim_small_patch16 --batch_size 4 --norm_pix_loss --output_dir runs/pretrain
python main_pretrain.py --model mae_3d_vim_small_patch16 --objective ar --scan_order hilbert --output_dir runs/ar
torchrun --nproc_per_node=4 main_pretrain.py ...        the same on several GPUs, or CPU processes
"""

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
from util.options.build import as_json
from util.options.build import parse as parse_options
from util.options.pretrain import PretrainOptions
from util.process.launch import launch
from util.process.stopping import StopRequest
from util.runs import device_name, start_run
from util.training.data_failures import surviving
from util.training.fit import Inside, fit
from util.training.loader import eval_loader, seed_all, train_loader
from util.training.optim import Schedule, Stepper, build_optimizer, scaled_lr
from util.training.precision import precision_of_run
from util.training.record import Record
from util.training.saving import SaveOptions
from util.training.state import Training, average_of
from vis.drawing.reconstruction import reconstruction_picture

logger = logging.getLogger(__name__)


def parse(argv: list[str] | None = None) -> PretrainOptions:
    return parse_options(PretrainOptions, argv, "Pre-train a 3D masked autoencoder, or an autoregressive model.")


def build_model(options: PretrainOptions) -> PatchPredictor:
    name = options.model.model
    masking = {} if options.model.masking is None else {"masking": options.model.masking}
    fields = {"norm_pix_loss": options.model.norm_pix_loss, **masking, **options.model.model_fields()}
    model = create_model(options.model.registered_name, **fields)
    if not isinstance(model, PatchPredictor):
        raise ValueError(f"--model {name} is a classifier; pre-training needs an autoencoder such as mae_3d_{name}")
    if isinstance(model, AutoregressiveModel3D) and options.model.objective == "mae":
        raise ValueError(f"--model {name} is autoregressive: pass --objective ar, or choose a mae_3d_... model")
    return model


def resumed_run(options: PretrainOptions) -> Path | None:
    """The folder of the run that --resume continues."""
    if options.run.resume is None:
        return None
    return Path(options.run.output_dir if options.run.resume == "auto" else Path(options.run.resume).parent)


def train(options: PretrainOptions, world: World, stop: StopRequest) -> None:
    with stop, ExitStack() as held:
        pretrain(options, world, stop, held)


def pretrain(options: PretrainOptions, world: World, stop: StopRequest, held: ExitStack) -> None:
    root = options.data.root("BASE_PATH")
    volumes = PreparedVolumes(root, normalize=options.data.normalization, on_bad_volume=options.data.on_bad_volume)
    training_volumes, to_input = training_input(
        volumes, options.data.augment, resample_affine_fn, augment=not options.data.no_augment
    )
    options.model.check_size(volumes.size, root)
    loader = train_loader(
        training_volumes,
        batch_size=options.training.batch_size,
        world=world,
        seed=options.run.seed,
        num_workers=options.data.num_workers,
        pin_memory=options.data.pin_mem,
    )

    seed_all(options.run.seed)  # the same weights on every rank
    ratio = options.model.removed_part
    model = build_model(options).to(world.device)
    tokens = model.config.tokens
    seen = tokens if ratio is None else count_kept(tokens, ratio)
    lr = scaled_lr(
        options.training.lr, options.training.blr, options.training.batch_size, options.training.accum_iter, world.size
    )
    optimizer = build_optimizer(model, lr=lr, weight_decay=options.training.weight_decay, betas=(0.9, 0.95))
    precision = precision_of_run(options.training.precision, world, resumed_run(options))
    stepper = Stepper(optimizer, world.device, precision.used, options.training.clip_grad)
    schedule = Schedule(lr, options.training.min_lr, options.training.warmup_epochs, options.training.epochs)
    config = {
        "kind": "pretrain",
        "model": {"name": options.model.registered_name, "fields": asdict(model.config)},
        "data": volumes.describe(),
        "objective": options.model.objective,
        "mask_ratio": ratio,
        "device": device_name(world.device),
        "ranks": world.size,
        "precision": precision.plain(),
        "args": as_json(options),
    }
    held.enter_context(
        locked_by_main(world, options.run.output_dir, "the run", "wait for it, or choose another --output_dir")
    )
    world.together(
        lambda: start_run(
            options.run.output_dir, config, resume=options.run.resume is not None, overwrite=options.run.overwrite
        )
    )
    saving = SaveOptions(options.run.save_freq, options.run.keep_last, options.run.on_save_error)
    training = Training(
        model, stepper, options.run.output_dir, config, world, average_of(model, options.training.ema), saving
    )
    training.resume(options.run.resume)
    log_dir = options.run.log_dir or options.run.output_dir
    record = Record(options.run.output_dir, log_dir, is_main=world.is_main, first_epoch=training.next_epoch)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    baseline = patch_mean_loss(model, eval_loader(volumes, batch_size=1, num_workers=0), world.device)
    logger.info(
        "%s: %d trainable parameters, %d tokens, %d of them seen; %d subjects, %d rank(s), lr %.3g; predicting each "
        "patch by its mean gives loss %.4f",
        options.model.registered_name,
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
            seed=options.run.seed,
            inside=inside,
            tokens=tokens,
            mask_ratio=ratio,
            to_input=to_input,
            stepper=stepper,
            schedule=schedule,
            accum_iter=options.training.accum_iter,
            ema=training.ema,
            record=record,
        )
        return {**scalars, "baseline_loss": baseline}

    def draw(epoch: int) -> None:
        if options.run.picture_freq and (
            (epoch + 1) % options.run.picture_freq == 0 or epoch + 1 == options.training.epochs
        ):
            volume = volumes[0][0].unsqueeze(0).to(world.device)
            picture = reconstruction_picture(training.best_known, volume, mask_ratio=ratio, seed=options.run.seed)
            record.picture("input | masked | reconstruction", picture, epoch)

    fit(
        training,
        run_epoch,
        epochs=options.training.epochs,
        record=record,
        stop=stop,
        max_bad_steps=options.training.max_bad_steps,
        after_epoch=draw,
    )
    record.close()
    report_stand_ins(world.gather(training_volumes.stand_ins()))
    logger.info("pre-training done: %s", Path(options.run.output_dir) / f"checkpoint-{options.training.epochs - 1}.pth")


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    run = options.run
    launch(surviving(train, options), device=run.device, threads=run.threads, rank_timeout=run.rank_timeout)


if __name__ == "__main__":
    cli.run(main)
