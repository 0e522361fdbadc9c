"""The report: one offline file with results and provenance, in which no text becomes markup."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import vis.reporting.examples
from tests.helpers.vis_cases import write_finetune_run, write_prepared, write_pretrain_run
from util import cli
from util.runs import read_config
from vis.report import main, write_report

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = '<img src=x onerror="alert(1)">&amp;{{7*7}}'
SUBJECTS = ["E", "F", "G", HOSTILE]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(cli, "setup_logging", lambda: None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    pre = write_pretrain_run(root / "pre", write_prepared(root / "brats", ["P", "Q"]))
    data = write_prepared(root / "egd", SUBJECTS)
    return pre, write_finetune_run(root / "fine", data, sorted(SUBJECTS), finetune=pre / "checkpoint-1.pth")


@pytest.fixture(scope="module")
def html(runs):
    out = runs[0].parent / "report.html"
    write_report(*runs, out, examples=2, device="cpu")
    return out.read_text(encoding="utf-8")


class Tags(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.opened, self.closed, self.attributes, self.text = [], [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.opened.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        self.closed.append(tag)

    def handle_data(self, data):
        self.text += data


def test_file_needs_no_network(html):
    tags = Tags(html)
    assert "script" not in tags.opened
    assert "link" not in tags.opened
    sources = [value for name, value in tags.attributes if name in ("src", "href")]
    assert len(sources) >= 9
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"url\(|@import", html)


def test_markup_is_balanced(html):
    tags = Tags(html)
    void = {"meta", "img"}
    assert sorted(tag for tag in tags.opened if tag not in void) == sorted(tags.closed)


def test_subject_name_is_text_and_no_markup(html):
    tags = Tags(html)
    assert "<img src=x" not in html
    assert not any(name.startswith("on") for name, _ in tags.attributes)
    assert HOSTILE in tags.text
    assert any(name == "alt" and HOSTILE in value for name, value in tags.attributes)


def test_numbers_and_provenance_are_there(html):
    text = Tags(html).text
    numbers = ("0.912", "0.012", "0.400", "50% below", "3 of unknown label were excluded")
    provenance = ("main_pretrain.py --model", "git abc123", "torch 2.14.1", "x86_64 Linux")
    for words in (*numbers, *provenance, "held out in fold 0", "not among the pre-training subjects"):
        assert words in text, words
    assert text.count("Research use only, not a medical device") >= 2


def test_every_picture_has_a_caption(html):
    tags = Tags(html)
    assert tags.opened.count("figure") == tags.opened.count("img") == tags.opened.count("figcaption")


def test_phantoms_get_a_banner_and_others_do_not(runs, html, tmp_path):
    assert "Simulated phantoms" not in html
    mark = Path(read_config(runs[1])["data"]["root"]) / "t1" / "PhantomEGD-0001_t1.npy"
    mark.touch()
    try:
        write_report(None, runs[1], tmp_path / "phantom.html", examples=0, device="cpu")
    finally:
        mark.unlink()
    assert "Simulated phantoms, not patients" in (tmp_path / "phantom.html").read_text(encoding="utf-8")


def test_each_kind_of_run_alone(runs, tmp_path):
    main(["--pretrain", str(runs[0]), "--out", str(tmp_path / "a.html"), "--examples", "1", "--device", "cpu"])
    text = Tags((tmp_path / "a.html").read_text(encoding="utf-8")).text
    assert "cross-validation" not in text
    assert "seen in pre-training" in text
    write_report(None, runs[1], tmp_path / "b.html", examples=0)
    assert "removed patches" not in Tags((tmp_path / "b.html").read_text(encoding="utf-8")).text


def test_the_default_folder_is_the_finetuning_run(runs):
    main(["--finetune", str(runs[1]), "--examples", "0", "--device", "cpu"])
    text = (runs[1] / "report.html").read_text(encoding="utf-8")
    assert "After 2 epochs" in text  # includes its pre-training run


def test_examples_flag_sets_their_number(runs, tmp_path):
    counts = []
    for number in (0, 1):
        write_report(*runs, tmp_path / "r.html", examples=number, device="cpu")
        counts.append((tmp_path / "r.html").read_text(encoding="utf-8").count("<figure>"))
    assert counts[1] == counts[0] + 2
    with pytest.raises(ValueError, match="--examples -1"):
        write_report(*runs, tmp_path / "r.html", examples=-1)


def test_without_examples_no_model_is_opened(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(vis.reporting.examples, "open_run", lambda *_, **__: pytest.fail("a model was opened"))
    write_report(*runs, tmp_path / "r.html", examples=0)


def test_without_the_data_the_report_has_no_examples(runs, tmp_path):
    data = write_prepared(tmp_path / "data", ["P", "Q"])
    run = write_pretrain_run(tmp_path / "run", data)
    data.rename(tmp_path / "elsewhere")
    write_report(run, None, tmp_path / "r.html", device="cpu")
    text = Tags((tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert "No example figures" in text
    assert "After 2 epochs" in text


def test_a_report_starts_without_tensorboard():
    code = "import sys, vis.report; sys.exit('tensorboard' in sys.modules or 'torch.utils.tensorboard' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
