# `make demo` (raw NIfTI to a report on simulated studies), `make test` and `make bench`. Each sets up .venv by itself.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
DEMO := demo_run
MINUTES := 10
WORKERS ?= 2
KILLS := 100
SOURCES := peers
GPU_MINUTES := 6
export OMP_WAIT_POLICY ?= PASSIVE

# `make test WORKERS=8`: tests run in so many processes, of one thread each.
# `make test ISA=x86-64-v3` tests as on a CPU of that level: our kernels, and what PyTorch, oneDNN, OpenBLAS and MKL may use.
ISA ?=
IMITATE_x86-64-v2 := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 OPENBLAS_CORETYPE=Prescott MKL_ENABLE_INSTRUCTIONS=SSE4_2
IMITATE_x86-64-v3 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 OPENBLAS_CORETYPE=Haswell MKL_ENABLE_INSTRUCTIONS=AVX2
IMITATE_x86-64-v4 := ATEN_CPU_CAPABILITY=avx512 ONEDNN_MAX_CPU_ISA=AVX512_CORE OPENBLAS_CORETYPE=SkylakeX MKL_ENABLE_INSTRUCTIONS=AVX512

# The demo's model: the tiny row of the registry, narrower and shorter; patch 8 on 80^3 volumes is 1,000 tokens.
MODEL := --input_size 80 --model_kwargs embed_dim=96 depth=4 decoder_embed_dim=48 decoder_depth=2 \
    --batch_size 2 --num_workers 1 --resume auto

FINETUNE = $(PY) main_cr_finetune.py --model vim_3d_tiny_patch8 $(MODEL) --data $(DEMO)/data/egd_prepared \
    --label_type IDH --epochs 6 --warmup_epochs 0.5 --lr 2e-3 --drop_path 0 --use_scheduler --eval_freq 2
PRETRAINED = --finetune $(DEMO)/pretrain/checkpoint-39.pth

.PHONY: demo controls test quick coverage torture sanitize verify docs bench bench-gpu clean-demo help

help:
	@echo "make demo   simulate studies, prepare, pre-train, fine-tune, visualise; ends with the report's path"
	@echo "make controls  after the demo: its classifier from scratch and on what should tell nothing; are maps true?"
	@echo "make test   linters, type checker, tests (ISA=x86-64-v2, -v3 or -v4: as on a CPU of that level)"
	@echo "make quick   linters and the tests of what changed, at most 90 s: while you work"
	@echo "make coverage  tests under coverage.py, their processes too -> docs/testing.md, assets/coverage.svg"
	@echo "make torture  trainings killed at random moments, checkpoints damaged, hostile files for every reader"
	@echo "              -> benchmarks/results/ (KILLS=100 MINUTES=10)"
	@echo "make sanitize  the CPU kernels under AddressSanitizer and UBSan, over a grid of shapes and a fuzz (MINUTES=10)"
	@echo "make verify  comparisons with what others wrote, docs/verification.md -> benchmarks/results/"
	@echo "             (SOURCES=FOLDER: the folder of their source trees; QUICK=--quick: a few cases of each)"
	@echo "make docs   the documentation as a site -> build/site/index.html"
	@echo "make bench-gpu  on a GPU: are its kernels right, and how far from the least time (GPU_MINUTES=6)"
	@echo "make bench  speed and memory beside the machine's limits -> benchmarks/results/ (QUICK=--quick: tiny sizes)"

$(VENV)/.installed: requirements.txt
	@echo "== installing requirements.txt into $(VENV) (once; torch is large)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	@echo "== installing requirements-dev.txt into $(VENV)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed requirements-bench.txt
	@echo "== installing requirements-bench.txt into $(VENV); without it the peer is skipped"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt && touch $@ || true

$(VENV)/.installed-verify: $(VENV)/.installed-dev requirements-verify.txt
	@echo "== installing requirements-verify.txt into $(VENV); what is absent is skipped"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-verify.txt && touch $@ || true

$(VENV)/.installed-docs: $(VENV)/.installed requirements-docs.txt
	@echo "== installing requirements-docs.txt into $(VENV)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	@touch $@

# Simulated studies, raw NIfTI -> report. Every step skips what is done, so a second call continues or ends at once.
demo: $(VENV)/.installed
	@echo "== 1/6 simulate raw NIfTI studies (phantoms, not patients)"
	$(PY) prepare_data.py phantom $(DEMO)/data/raw --layout brats --subjects 40 --seed 1 --spacing 2 --workers 2
	$(PY) prepare_data.py phantom $(DEMO)/data/raw --layout egd --subjects 72 --seed 1 --spacing 2 --workers 2
	@echo "== 2/6 prepare them: orientation, crop, resampling to 80^3, uint8"
	$(PY) prepare_data.py brats $(DEMO)/data/raw/brats $(DEMO)/data/brats_prepared --size 80 --workers 2
	$(PY) prepare_data.py egd $(DEMO)/data/raw/egd $(DEMO)/data/egd_prepared --size 80 --workers 2 \
	    --labels $(DEMO)/data/raw/egd/Genetic_and_Histological_labels.xlsx
	@echo "== 3/6 pre-train a masked autoencoder on the BraTS-like studies"
	$(PY) main_pretrain.py --model mae_3d_vim_tiny_patch8 $(MODEL) --data $(DEMO)/data/brats_prepared --no_augment \
	    --epochs 40 --warmup_epochs 2 --lr 2e-3 --drop_path 0 --output_dir $(DEMO)/pretrain
	@echo "== 4/6 fine-tune on the EGD-like studies: IDH, 5 folds"
	$(FINETUNE) $(PRETRAINED) --output_dir $(DEMO)/finetune
	@echo "== 5/6 look into the models: reconstructions, latent-to-spatial maps"
	$(PY) vis/visualize.py --run $(DEMO)/pretrain
	$(PY) vis/visualize_finetuned.py --run $(DEMO)/finetune
	@echo "== 6/6 write the report"
	$(PY) vis/report.py --pretrain $(DEMO)/pretrain --finetune $(DEMO)/finetune --out $(DEMO)/report.html
	@echo "Done. Open $(CURDIR)/$(DEMO)/report.html (phantoms: it shows that the program works, not how well on patients)"

# What the demo's classifier and its maps are worth: against one from scratch, with controls, without some contrasts,
# with another seed.
controls: demo
	$(FINETUNE) --output_dir $(DEMO)/scratch
	for control in background no_tumour shuffled_labels; do \
	    $(FINETUNE) $(PRETRAINED) --control $$control --output_dir $(DEMO)/$$control || exit 1; done
	$(PY) compare.py $(DEMO)/finetune $(DEMO)/scratch --out $(DEMO)/comparison
	$(FINETUNE) $(PRETRAINED) --contrast_dropout 0.3 --output_dir $(DEMO)/contrasts
	$(PY) -m vis.contrast_table --run $(DEMO)/contrasts
	$(FINETUNE) $(PRETRAINED) --seed 1 --output_dir $(DEMO)/seed1
	$(PY) vis/check_maps.py --run $(DEMO)/finetune --shuffled $(DEMO)/shuffled_labels --seeds $(DEMO)/seed1 --subjects 3
	$(PY) vis/report.py --pretrain $(DEMO)/pretrain --finetune $(DEMO)/finetune --out $(DEMO)/report.html

test: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(VENV)/bin/pyright
	$(if $(ISA),MAMBA_MAE_ISA=$(ISA)) $(IMITATE_$(ISA)) OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 \
	    $(PY) -m pytest --numprocesses $(WORKERS) --dist loadfile

quick: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 $(PY) -m tests.helpers.quick 70

# A test that fails under measurement, for example for its time, still leaves the figures of all others.
coverage: $(VENV)/.installed-dev
	rm -f .coverage .coverage.*
	OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 $(PY) -m coverage run -m pytest --numprocesses $(WORKERS) --dist loadfile; \
	    status=$$?; $(PY) -m coverage combine --quiet && mkdir -p build && $(PY) -m coverage json -q -o build/coverage.json \
	    && $(PY) docs/draw_coverage.py build/coverage.json && exit $$status

torture: $(VENV)/.installed-dev
	OMP_WAIT_POLICY=PASSIVE $(PY) -m tests.robustness.torture --kills $(KILLS)
	$(PY) -m tests.robustness.fuzz --minutes $(MINUTES)

sanitize: $(VENV)/.installed-dev
	$(PY) -m tests.robustness.sanitize --minutes $(MINUTES)

verify: $(VENV)/.installed-verify
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(PY) -m tests.verification all --sources $(SOURCES) --report $(QUICK)

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build
	@echo "Done. Open $(CURDIR)/build/site/index.html"

# Threads that sleep at once wake up late for the next operator, which shows at small sizes; the longer they wait awake,
# the more another process on the same cores costs them. 20,000 turns are some tenths of a millisecond.
bench: export GOMP_SPINCOUNT ?= 20000
bench: $(VENV)/.installed-bench
	$(PY) -m benchmarks.bench_scan $(QUICK)
	$(PY) -m benchmarks.bench_step $(QUICK)
	$(PY) -m benchmarks.bench_scaling $(QUICK)
	$(PY) -m benchmarks.bench_data $(QUICK)

bench-gpu: $(VENV)/.installed
	$(PY) -u -m benchmarks.bench_gpu --out benchmarks/results/bench_gpu.txt --minutes $(GPU_MINUTES)

clean-demo:
	rm -rf $(DEMO)
