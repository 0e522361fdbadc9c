"""The installed command: `mamba-mae NAME ...` is `python NAME.py ...` of a checkout.

mamba-mae prepare egd /data/EGD /data/prepared/egd
mamba-mae pretrain --data /data/prepared/brats --output_dir runs/pretrain
torchrun --nproc_per_node=4 -m mamba_mae_3d.main_pretrain ...       several GPUs
"""

import sys
from importlib import import_module

PROGRAMS = {  # module and what it does
    "prepare": ("prepare_data", "raw NIfTI studies to prepared volumes; simulated studies"),
    "pretrain": ("main_pretrain", "pre-train on prepared volumes without labels"),
    "finetune": ("main_cr_finetune", "fine-tune and evaluate a classifier by cross-validation"),
    "probe": ("probe", "compare frozen features of checkpoints"),
    "compare": ("compare", "test two runs for a difference on the same subjects"),
    "visualize": ("vis.visualize", "reconstructions and latent maps of a pre-trained model"),
    "visualize-finetuned": ("vis.visualize_finetuned", "maps of a fine-tuned model on held-out subjects"),
    "check-maps": ("vis.check_maps", "sanity checks of maps"),
    "contrast-table": ("vis.contrast_table", "how well a run does without some contrasts"),
    "report": ("vis.report", "one offline HTML report of runs"),
    "predict": ("predict", "a new patient's scans to probabilities, maps and a report"),
    "checkpoint": ("util.checkpoint.__main__", "inspect, convert, export or publish checkpoints"),
}


def main() -> None:
    """Run the program that the first argument names, with the other arguments."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("usage: mamba-mae NAME [options]; mamba-mae NAME --help lists the options\n")  # noqa: T201
        print("\n".join(f"  {name:<20} {text}" for name, (_, text) in PROGRAMS.items()))  # noqa: T201
        return
    if name not in PROGRAMS:
        sys.exit(f"error: mamba-mae {name}: choose one of {', '.join(PROGRAMS)}")
    sys.argv = [f"mamba-mae {name}", *sys.argv[2:]]
    package = f"{__package__}." if __package__ else ""
    cli = import_module(f"{package}util.cli")
    cli.run(import_module(package + PROGRAMS[name][0]).main)


if __name__ == "__main__":
    main()
