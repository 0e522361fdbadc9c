#!/usr/bin/env bash
# Pre-training of the paper at patch size 4: small model, BraTS 2022, 160^3, 1,000 epochs, 4 volumes a GPU.
set -euo pipefail
BRATS=${BRATS:-/data/prepared/brats} # prepare_data.py brats
RUNS=${RUNS:-runs}
GPUS=${GPUS:-4}
FIDELITY=${FIDELITY:-corrected}

torchrun --standalone --nproc_per_node="$GPUS" main_pretrain.py --model mae_3d_vim_small_patch4 --fidelity "$FIDELITY" \
    --data "$BRATS" --input_size 160 --batch_size 4 --norm_pix_loss --mask_ratio 0.75 --epochs 1000 --warmup_epochs 40 \
    --blr 2.5e-4 --weight_decay 0.05 --seed 42 --precision bf16 --grad_checkpointing --num_workers 8 --save_freq 30min --resume auto \
    --output_dir "$RUNS/pretrain_patch4"
