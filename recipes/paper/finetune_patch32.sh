#!/usr/bin/env bash
# Fine-tuning of the paper at patch size 32: EGD, 5 folds, 100 epochs, from recipes/paper/pretrain_patch32.sh.
set -euo pipefail
EGD=${EGD:-/data/prepared/egd} # prepare_data.py egd
RUNS=${RUNS:-runs}
GPUS=${GPUS:-4}
LABEL=${LABEL:-IDH} # or 1p19q
FIDELITY=${FIDELITY:-corrected}

torchrun --standalone --nproc_per_node="$GPUS" main_cr_finetune.py --model vim_3d_small_patch32 --fidelity "$FIDELITY" \
    --data "$EGD" --input_size 160 --finetune "$RUNS/pretrain_patch32/checkpoint-999.pth" --label_type "$LABEL" --k_fold 5 \
    --batch_size 2 --epochs 100 --lr 1e-4 --weight_decay 0.05 --use_scheduler --seed 42 --precision bf16 --num_workers 8 \
    --resume auto --output_dir "$RUNS/finetune_patch32_$LABEL"
