"""The offline viewer: all data in one small file, which works in a real browser."""

import base64
import gzip
import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch

from tests.helpers.vis_cases import AFFINE
from util.data.folder import CONTRASTS
from util.inference.study import Study
from vis.drawing.style import NOTICE
from vis.export.viewer import write_viewer

SIZE = (16, 24, 8)
BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
LIMIT_MB = 15
CLICKS = """ready.then(() => {
      const canvas = byId("axial"), box = canvas.getBoundingClientRect();
      const across = ACROSS * box.width, down = DOWN * box.height;
      const before = canvas.toDataURL();
      canvas.dispatchEvent(new PointerEvent("pointerdown", {clientX: box.left + across, clientY: box.top + down}));
      const log = ["voxel", "world", "grey", "value"].map(id => byId(id).textContent);
      byId("map").value = 1; byId("map").dispatchEvent(new Event("change"));
      byId("contrast").value = 0; byId("contrast").dispatchEvent(new Event("change"));
      log.push(byId("value").textContent, byId("grey").textContent, byId("inside").textContent);
      byId("to-tumour").click();
      log.push(byId("voxel").textContent, byId("inside").textContent);
      log.push(document.querySelector("#sagittal + figcaption").textContent);
      const pixels = () => byId("axial").toDataURL();
      const shown = pixels(); byId("threshold").value = 100; byId("threshold").dispatchEvent(new Event("input"));
      const hidden = pixels(); byId("outline").click(); const bare = pixels();
      byId("to-peak").click();
      log.push(String(shown !== hidden), String(hidden !== bare), String(before !== shown), byId("value").textContent);
      const found = document.createElement("pre"); found.id = "found"; found.textContent = JSON.stringify(log);
      document.body.append(found);
    });
"""


@pytest.fixture
def study():
    volume = np.zeros((4, *SIZE), np.float32)
    volume[:, 2:14, 2:22, 1:7] = np.random.default_rng(0).normal(size=(4, 12, 20, 6))
    tumour = np.zeros(SIZE, np.uint8)
    tumour[5:8, 10:14, 2:4] = 1
    return Study("S </script> <b>", CONTRASTS, volume, tumour, oriented=True, phantom=True)


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(2, 3, 1, generator=generator) for name in ("max", "gradient")}


def written(folder, study, maps):
    write_viewer(folder / "v.html", study, AFFINE, maps, subtitle="held out")
    page = (folder / "v.html").read_text()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return page, json.loads(data[1])


def unpacked(text, dtype):
    return np.frombuffer(gzip.decompress(base64.b64decode(text)), dtype)


def test_volumes_and_maps_are_in_the_file(tmp_path, study, maps):
    page, data = written(tmp_path, study, maps)
    assert data["size"] == list(SIZE)
    assert [c["name"] for c in data["contrasts"]] == ["T1", "T2", "T1ce", "FLAIR"]
    grey = (study.grey(study.volume_CZYX) * 255).round()
    np.testing.assert_array_equal(unpacked(data["contrasts"][2]["data"], "u1"), grey[2].ravel())
    np.testing.assert_array_equal(unpacked(data["tumour"], "u1"), study.segmentation_ZYX.ravel())
    np.testing.assert_array_equal(unpacked(data["maps"][1]["data"], "<f4"), maps["gradient"].numpy().ravel())
    assert data["maps"][1]["unit"] == "log-odds of the class"
    assert data["maps"][1]["low"] == -data["maps"][1]["high"]
    assert data["contrasts"][data["firstContrast"]]["name"] == "FLAIR"
    assert html.escape(study.subject) in page
    assert "</script> <b>" not in page
    assert "Simulated phantom, not a patient. " + NOTICE in page


def test_nothing_is_fetched(tmp_path, study, maps):
    page, _ = written(tmp_path, study, maps)
    code = page.split('id="data">')[0] + page.split("</script>", 1)[1]
    assert not re.search(r"https?:|//[a-z]|\bsrc=|\bhref=|@import|fetch\(|XMLHttpRequest", code)


def test_without_mask_or_map(tmp_path, study, maps):
    assert written(tmp_path, Study("S", CONTRASTS, study.volume_CZYX), maps)[1]["tumour"] is None
    with pytest.raises(ValueError, match="--map"):
        write_viewer(tmp_path / "v.html", study, AFFINE, {}, subtitle="")


def test_full_size_stays_under_the_limit(tmp_path):
    """160^3, four contrasts of noise in an ellipsoid that touches every side: a real brain compresses better."""
    index = np.linspace(-1, 1, 160) ** 2
    inside = (index[:, None, None] + index[:, None] + index) < 1
    volume = np.zeros((4, 160, 160, 160), np.float32)
    volume[:, inside] = np.random.default_rng(0).normal(size=(4, inside.sum())).astype(np.float32)
    write_viewer(
        tmp_path / "v.html", Study("S", CONTRASTS, volume), AFFINE, {"max": torch.randn(20, 20, 20)}, subtitle=""
    )
    assert (tmp_path / "v.html").stat().st_size < LIMIT_MB * 1e6


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")
def test_a_click_moves_the_other_planes_and_the_readout(tmp_path, study, maps):
    """In a real browser, opened from disk: click into the axial plane, change contrast and map, raise the threshold."""
    page, _ = written(tmp_path, study, maps)
    (z, _, x), clicked = study.focus, (18, 2)  # (y, x) to click at
    across, down = (SIZE[2] - 0.5 - clicked[1]) / SIZE[2], (SIZE[1] - 0.5 - clicked[0]) / SIZE[1]
    script = CLICKS.replace("ACROSS", str(across)).replace("DOWN", str(down))
    (tmp_path / "v.html").write_text(page.replace("</body>", f"<script>{script}</script></body>"))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
               "--virtual-time-budget=20000", "--dump-dom", (tmp_path / "v.html").as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout)
    assert found, done.stderr
    log = json.loads(html.unescape(found[1]))
    place, grey = (z, clicked[0], clicked[1]), (study.grey(study.volume_CZYX) * 255).round().astype(int)
    world = AFFINE[:3] @ (place[2], place[1], place[0], 1)
    token = tuple(index * side // size for index, side, size in zip(place, (2, 3, 1), SIZE))
    tumour = np.argwhere(study.segmentation_ZYX)
    peak = maps["gradient"].flatten()[maps["gradient"].abs().argmax()]
    assert log == [
        ", ".join(map(str, place)), ", ".join(f"{mm:.1f}" for mm in world), str(grey[3][place]),
        f"{maps['max'][token]:.4f}", f"{maps['gradient'][token]:.4f}", str(grey[0][place]), "outside",
        ", ".join(map(str, study.focus)), "inside", f"Sagittal, x {x} of 0 to 7", "true", "true", "true", f"{peak:.4f}",
    ]  # fmt: skip
    assert tumour.min(0).tolist() <= list(study.focus) <= tumour.max(0).tolist()
