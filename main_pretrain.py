"""Pre-train on prepared volumes: a masked autoencoder, or the same network predicting the next patch of its scan.

python main_pretrain.py --model mae_3d_vim_small_patch16 --batch_size 4 --norm_pix_loss --output_dir runs/pretrain
python main_pretrain.py --model mae_3d_vim_small_patch16 --objective ar --scan_order hilbert --output_dir runs/ar
torchrun --nproc_per_node=4 main_pretrain.py ...        the same on several GPUs, or CPU processes
"""

import logging
from dataclasses import asdict
from pathlib import Path

from engine_pretrain import Reconstruction, patch_mean_loss
from models import AutoregressiveModel3D, PatchPredictor, create_model
from models.tokens.masking import count_kept
from util import cli
from util.data.dataset import PreparedVolumes
from util.distributed.world import World
from util.files.locks import locked_by_main
from util.options import build, of_run
from util.options.groups import RunOptions
from util.options.pretrain import PretrainModelOptions, PretrainOptions
from util.process.launch import launch
from util.process.stopping import StopRequest
from util.run_folder import checkpoint_path
from util.runs import device_name, start_run
from util.training.data_failures import with_one_restart
from util.training.loader import eval_loader, seed_all
from util.training.precision import precision_of_run
from util.training.trainer import Trainer, make_trainer
from vis.drawing.reconstruction import reconstruction_picture

logger = logging.getLogger(__name__)


def parse(argv: list[str] | None = None) -> PretrainOptions:
    text = "Pre-train a 3D masked autoencoder, or an autoregressive model."
    return of_run.parse(PretrainOptions, argv, text, "pretrain")


def build_model(options: PretrainModelOptions) -> PatchPredictor:
    masking = {} if options.masking is None else {"masking": options.masking}
    fields = {"norm_pix_loss": options.norm_pix_loss, **masking, **options.model_fields()}
    name, model = options.model, create_model(options.registered_name, **fields)
    if not isinstance(model, PatchPredictor):
        raise ValueError(f"--model {name} is a classifier; pre-training needs an autoencoder such as mae_3d_{name}")
    if isinstance(model, AutoregressiveModel3D) and options.objective == "mae":
        raise ValueError(f"--model {name} is autoregressive: pass --objective ar, or choose a mae_3d_... model")
    return model


def resumed_run(run: RunOptions) -> Path | None:
    """The folder of the run that --resume continues."""
    if run.resume is None:
        return None
    return run.output_dir if run.resume == "auto" else Path(run.resume).parent


def pretrain(options: PretrainOptions, world: World, stop: StopRequest) -> None:
    data, run = options.data, options.run
    with stop:
        root = data.root(options.data_key)
        volumes = PreparedVolumes(root, normalize=data.normalization, on_bad_volume=data.on_bad_volume)
        options.model.check_size(volumes.size, root)
        seed_all(run.seed)  # the same weights on every rank
        model = build_model(options.model).to(world.device)
        mask_ratio = options.model.removed_part
        precision = precision_of_run(options.training.precision, world, resumed_run(run))
        config = {
            "kind": "pretrain",
            "model": {"name": options.model.registered_name, "fields": asdict(model.config)},
            "data": volumes.facts(),
            "objective": options.model.objective,
            "mask_ratio": mask_ratio,
            "device": device_name(world.device),
            "ranks": world.size,
            "precision": precision.plain(),
            "args": build.as_json(options),
        }
        trainer = make_trainer(
            model,
            Reconstruction(model.config.tokens, mask_ratio, run.seed, world),
            volumes,
            options,
            world,
            folder=run.output_dir,
            config=config,
            precision=precision.used,
            betas=(0.9, 0.95),
        )
        with locked_by_main(world, run.output_dir, "the run", "wait for it, or choose another --output_dir"):
            is_resumed = run.resume is not None
            changed = of_run.changes(options, "pretrain")
            world.on_main_rank(
                lambda: start_run(run.output_dir, config, resume=is_resumed, overwrite=run.overwrite, changed=changed)
            )
            trainer.resume(run.resume)
            baseline = patch_mean_loss(model, eval_loader(volumes, batch_size=1, num_workers=0), world.device)
            log_start(trainer, options, volumes, baseline)

            def after_epoch(epoch: int) -> dict[str, float]:
                is_last = epoch + 1 == options.training.epochs
                if world.is_main and run.picture_freq and ((epoch + 1) % run.picture_freq == 0 or is_last):
                    volume = volumes[0][0].unsqueeze(0).to(world.device)
                    shown = trainer.state.model_to_use
                    picture = reconstruction_picture(shown, volume, mask_ratio=mask_ratio, seed=run.seed)
                    trainer.picture("input | masked | reconstruction", picture, epoch)
                return {"baseline_loss": baseline}

            trainer.fit(stop, after_epoch=after_epoch)
        logger.info("pre-training done: %s", checkpoint_path(run.output_dir, options.training.epochs - 1))


def log_start(
    trainer: Trainer[PatchPredictor], options: PretrainOptions, volumes: PreparedVolumes, baseline: float
) -> None:
    model, mask_ratio = trainer.state.model, options.model.removed_part
    tokens = model.config.tokens
    logger.info(
        "%s: %d trainable parameters, %d tokens, %d of them seen; %d subjects, %d rank(s), lr %.3g; predicting each "
        "patch by its mean gives loss %.4f",
        options.model.registered_name,
        sum(p.numel() for p in model.parameters() if p.requires_grad),
        tokens,
        tokens if mask_ratio is None else count_kept(tokens, mask_ratio),
        len(volumes),
        trainer.world.size,
        trainer.schedule.lr,
        baseline,
    )


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    run, work = options.run, with_one_restart(pretrain, options)
    launch(work, device=run.device, threads=run.threads, rank_timeout=run.rank_timeout)


if __name__ == "__main__":
    cli.run(main)
