"""Every command of the documentation is run at small size, or checked where running it is not for a test.

Options are added that make models and trainings small; paths below /data lead to a folder made here. What is not run
is parsed by its program, and its model is built without memory; the reasons stand in NOT_RUN. Commands that start no
program of ours are listed in OTHERS.
"""

import re
import shlex

import pytest
import torch

import engine_finetune
import main_pretrain
from tests.helpers.pages import PAGES, ROOT, blocks, commands, name_of
from tests.helpers.prepared import SIDE, TINY, make_prepared
from tests.helpers.programs import Call, call_of
from tests.helpers.raw_studies import brain_volume, write_nifti, write_study
from util import cli
from util.data.folder import CONTRASTS, LABEL_SHEET

SUBJECTS = 16
EPOCHS = "1"
OTHERS = {  # begins with: why it is not run
    "make ": "targets and variables of the Makefile are checked below; each runs for minutes",
    "python3 -m venv .venv": "what `make demo` does itself",
    ".venv/bin/python -m pip install -r ": "the file must exist; installing needs the network",
    "source .venv/bin/activate": "for a person's shell",
    "pip install ": "the files must exist; installing needs the network, the kernels nvcc",
    "mamba-mae --help": "tests/programs/test_commands.py runs the installed command",
    "git clone ": "other people's trees",
    "hf auth login": "huggingface_hub's",
    "python -m tests.verification ": "the name must exist; tests/verification runs the checks",
    "rm -f ": "a line of a script",
}
NOT_RUN = {  # a regular expression over the command: why it is checked only
    r"^cd vis": "shows the newest run of the repository; tests/vis starts it from that folder",
    r"^mamba-mae": "tests/programs/test_commands.py runs the installed command",
    r"^#!": "tests/distributed/test_slurm.py",
    r"torchrun|torch\.distributed": "tests/distributed starts several ranks",
    r"hf-hub:|push |exports/": "tests/docs/test_hub.py runs that page against a stand-in of the hub",
    r"\.onnx|\.pt2": "tests/util/export; slow",
    r"phantom /data/phantoms": "docs/getting-started.md runs the same program",
    r"mha": "tests/models; a hybrid of two blocks needs another choice of its attention blocks",
    r"vim_small_brats_160_patch4/": "the weights are the paper's",
}
LONGEST = ["--layers", "3", "7", "11"]  # blocks that small models do not have
ADDED = {
    "prepare_data.py": ["--size", str(SIDE)],
    "main_pretrain.py": ["--epochs", EPOCHS, "--picture_freq", "0", *TINY],
    "main_cr_finetune.py": ["--epochs", EPOCHS, "--batch_size", "8", *TINY],
    "probe.py": ["--device", "cpu"],
    "compare.py": [],
    "predict.py": ["--device", "cpu"],
    "vis/visualize.py": ["--device", "cpu", "--subjects", "1"],
    "vis/visualize_finetuned.py": ["--device", "cpu", "--subjects", "1"],
    "vis/check_maps.py": ["--device", "cpu", "--subjects", "1", "--folds", "0", "--sanity", "1", "--stability", "1"],
    "vis/report.py": ["--device", "cpu", "--examples", "1"],
    "vis.contrast_table": ["--device", "cpu"],
    "util.checkpoint": [],
}
AS_PRINTED = "data/"  # a command that names data of its own runs as it is printed, on fewer subjects
FEWER = {"12": "5"}
ALL = [(page, command) for page in PAGES for command in commands(page)]
IDS = [f"{name_of(page)}: {command[:60]}" for page, command in ALL]


def not_run(command):
    return next((reason for pattern, reason in NOT_RUN.items() if re.search(pattern, command)), None)


@pytest.mark.parametrize(("page", "command"), ALL, ids=IDS)
def test_programs_accept_the_command(page, command):
    """Options are known, and a model of these fields exists at the printed size."""
    lines = [line for line in command.splitlines() if not line.startswith("#")]
    calls = [found for line in lines if (found := call_of(line)) is not None]
    if not calls:
        assert command.startswith(tuple(OTHERS)), "no program of ours, and not listed in OTHERS"
    for call in calls:
        args = call.parse()
        with torch.device("meta"):
            if call.program == "main_pretrain.py":
                main_pretrain.build_model(args.model)
            elif call.program == "main_cr_finetune.py":
                engine_finetune.build_classifier(args)


def test_make_knows_the_targets():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    texts = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    targets = re.findall(r"(?:^|`)make((?: [A-Z]+=\S+)*) ([\w-]+)((?: [A-Z_]+=[^\s`]+)*)", texts, re.MULTILINE)
    assert targets
    for before, target, after in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
        for variable in re.findall(r"([A-Z_]+)=", before + after):
            assert re.search(rf"^{variable} \??:?=|\$\({variable}\)", makefile, re.MULTILINE), variable


def test_the_papers_commands_are_here():
    """Both stand in the pages as the paper prints them, and are parsed above."""
    assert len({command for _, command in ALL if "--master_port=27590 --use_env" in command}) == 2


def test_requirements_that_are_installed_exist():
    for _, command in ALL:
        for name in re.findall(r"-r (\S+)", command):
            assert (ROOT / name).is_file(), name


def test_verifications_exist():
    from tests.verification.__main__ import parse

    for _, command in ALL:
        if command.startswith("python -m tests.verification "):
            parse(shlex.split(command)[3:])


@pytest.mark.parametrize("table", [OTHERS, NOT_RUN, ADDED], ids=["OTHERS", "NOT_RUN", "ADDED"])
def test_no_exception_is_stale(table):
    for key in table:
        found = [c for _, c in ALL if c.startswith(key) or (table is NOT_RUN and re.search(key, c)) or key in c]
        assert found, key


class Place:
    """A folder in which the commands of a page run, after those that make its runs and data."""

    def __init__(self, root):
        self.root, self.done = root, set()
        for index in range(2):
            write_study(root / "data" / "BraTS2022", f"BraTS-{index}", seed=index)
            for contrast, folder in zip(CONTRASTS, ("1_T1", "2_T1GD", "3_T2", "4_FLAIR")):
                name = folder.split("_")[1]
                write_nifti(
                    root / "data/EGD" / f"sub-{index:02d}" / folder / "NIFTI" / f"{name}.nii.gz", brain_volume()
                )
                write_nifti(root / "data/own" / f"s{index}" / "anat" / f"s{index}_{contrast}.nii.gz", brain_volume())
        for contrast in CONTRASTS:
            path = root / "data/new/patient_1" / f"patient_1_{contrast}.nii.gz"
            write_nifti(path, brain_volume(CONTRASTS.index(contrast)))
        for name in ("brats", "egd"):
            make_prepared(root / "data" / "trained_on" / name, count=SUBJECTS)
        sheet = root / "data/trained_on/egd" / LABEL_SHEET
        (root / "data/EGD" / LABEL_SHEET).write_bytes(sheet.read_bytes())
        (section,) = blocks(ROOT / "docs/data.md", "ini")
        (root / "config.ini").write_text(self.here(section))

    def here(self, text, prepared="trained_on"):
        """Paths below /data lead to this place; what is trained on is another folder than what commands prepare."""
        text = text.replace("checkpoint-999.pth", f"checkpoint-{int(EPOCHS) - 1}.pth")
        return re.sub(
            r"(?<![\w.])/data/(prepared(?=/))?", lambda at: f"{self.root}/data/{prepared if at[1] else ''}", text
        )

    def small(self, call: Call):
        """The words of a command for this folder, made small."""
        prepared = "prepared" if call.program == "prepare_data.py" else "trained_on"
        words = [self.here(word, prepared) for word in call.words]
        added = list(ADDED[call.program])
        if any(word.startswith(AS_PRINTED) for word in call.words):
            words = [FEWER.get(word, word) for word in words]
            return [*words, "--device", "cpu", "--batch_size", "2"] if call.program.startswith("main_") else words
        if call.program == "probe.py" and "--folds_from" not in words:
            added += ["--k_fold", "2"]
        if call.program.startswith("main_"):
            added += ["--config", str(self.root / "config.ini")]
            if "--resume" not in words and "--eval" not in words:
                added.append("--overwrite")
        return [*words, *added]

    def run(self, page, only=""):
        """Run the page's commands that are to be run, in their order; those that ran before not again."""
        for command in commands(page):
            call = call_of(command)
            if call is None or not_run(command) or command in self.done or not call.program.startswith(only):
                continue
            text = " ".join(call.words)
            if " ".join(LONGEST) in text:
                call = Call(call.program, shlex.split(text.replace(" ".join(LONGEST), "--layers 0 1")), call.launched)
            self.done.add(command)
            try:
                assert call.main(self.small(call)) in (None, 0)
            except (SystemExit, ValueError, AssertionError) as error:
                raise AssertionError(f"{name_of(page)}: {command}\n{error}") from error


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "setup_logging", lambda *_: None)
        root = tmp_path_factory.mktemp("place")
        patch.chdir(root)
        place = Place(root)
        for page in ("pretraining.md", "finetuning.md"):  # all others use their runs
            place.run(ROOT / "docs" / page, only="main_")
        yield place


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_run(page, place):
    place.run(page)


PYTHON_ELSEWHERE = {  # pages whose Python blocks other tests run
    "docs/hub.md": "tests/docs/test_hub.py",
    "docs/export.md": "tests/util/export and tests/ops/test_portable.py; they need exported files",
    "docs/extending.md": "tests/docs/test_extending.py",
}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_python_runs(page):
    for body in blocks(page, "python"):
        code = compile(body, name_of(page), "exec")
        if name_of(page) not in PYTHON_ELSEWHERE:
            exec(code, {"print": lambda *_: None})


def test_python_that_runs_elsewhere_is_there():
    assert all(blocks(ROOT / page, "python") for page in PYTHON_ELSEWHERE)


def test_the_readme_is_short():
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") <= 150
