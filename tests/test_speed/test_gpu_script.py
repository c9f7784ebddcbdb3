"""benchmarks/gpu.sh, the prepared GPU run, tested on the CPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

import mmcv
import pytest
from support.runs import ROOT

from benchmarks.mmcv_ops import bindings, names


@pytest.mark.parametrize("on_cuda", [True, False])
def test_ops_are_cut_out_of_mmcvs_sources(on_cuda):
    """Only these ops are declared, bound to Python, and optionally registered for CUDA."""
    sources = bindings(Path(mmcv.__file__).parent / "ops" / "csrc" / "pytorch", on_cuda)
    wanted = names(on_cuda)
    text = sources.pop("bind.cpp")
    assert re.findall(r"^\w+ (\w+)\(", text, re.MULTILINE) == wanted
    assert re.findall(r'm\.def\("(\w+)"', text) == wanted
    assert text.count("(") == text.count(")")
    registered = re.findall(r"REGISTER_DEVICE_IMPL\((\w+)", sources.pop("bind_cuda.cpp", ""))
    both = ("forward", "backward")
    expected = {f"ms_deform_attn_impl_{end}" for end in both} | {"nms_impl"}
    for op in ("roi_align", "sigmoid_focal_loss", "softmax_focal_loss"):
        expected |= {f"{op}_{end}_impl" for end in both}
    assert set(registered) == (expected if on_cuda else set())
    assert not sources


@pytest.mark.slow
def test_dry_run(tmp_path):
    environment = os.environ | dict(OUT=str(tmp_path), PYTHON=sys.executable)
    script = str(ROOT / "benchmarks" / "gpu.sh")
    done = subprocess.run(
        [script, "--dry-run"], env=environment, text=True, stdout=-1, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout
    table = (tmp_path / "gpu.md").read_text()
    parts = [line.split("|")[1].strip() for line in table.splitlines() if line.endswith("| 0 |")]
    assert sorted(part.split(",")[0] for part in parts) == [
        *["compare"] * 2,
        "setup of mmcv's ops",
        "tests",
        "train",
        "train",
    ]
    rows = [line for line in table.splitlines() if line.startswith("| conditional-detr")]
    assert [("compiled" in row, "bf16" in row) for row in rows] == [
        (False, False),
        (False, True),
        (True, False),
        (True, True),
    ]
    assert "Tests: 1 passed" in table and "coco/bbox_mAP: " in table
