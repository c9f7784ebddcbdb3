"""Models predict and train on a CUDA device that computes nothing (``benchmarks.fake_cuda``)."""

import re

import pytest
from support.small import CONFIGS, EVERY_PART, ROOT

MATCHES = "fastdetr_mmdet/models/matchers/hungarian_matcher.py:_match_all"
# DenseProposalLoss, for which mmdet's assigners read the device a few times per image
DENSE = ("fastdetr_mmdet/models/proposal_losses/", "mmdet/models/")
DTYPES = ("fp32", "bf16", "fp16")
QUICK = (EVERY_PART[1], "bf16", True)
# One of each model; not the peers from mmdet, nor those with a backbone from mmpretrain
OTHERS = re.compile("rtmdet|atss|faster-rcnn|dino_lite0|^detr_r18_convergence|timm|convnext")
SHIPPED = {
    re.sub(r"-\d+e_coco$", "", path.stem): f"{path.parent.name}/{path.stem}"
    for path in sorted((ROOT / "configs").glob("[!_]*/*.py"))
    if not OTHERS.search(path.stem)
}


@pytest.mark.parametrize(
    ("name", "dtype", "small"),
    [
        pytest.param(*case, marks=[] if case == QUICK else pytest.mark.slow)
        for names, small in ((CONFIGS, True), (SHIPPED.values(), False))
        for case in ((name, dtype, small) for name in names for dtype in DTYPES)
    ],
)
def test_the_host_reads_matches_and_nothing_else(processes, tmp_path, name, dtype, small):
    """Of padded images, and no device or type is one that does not fit."""
    job = dict(name=name, dtype=dtype, small=small)
    reads = processes.run("on_fake_cuda", tmp_path, 1, **job)[0]
    # torch's scaler of float16 reads whether gradients are finite, where no fused optimizer does
    step = [x for x in reads["training_step"] if not x.startswith("torch/amp/")]
    own = [x for x in step if not x.startswith(DENSE)]
    assert (reads["inference"], own) == ([], [MATCHES])
    if "fast-detr" not in name:
        assert own == step


def test_what_is_alive_and_moved(processes, tmp_path):
    """A product of 16 x 32 by 32 x 8, in float32: a view is not counted, nor what is gone."""
    product = 4 * 16 * 8
    given = 4 * (16 * 32 + 32 * 8)
    expected = dict(before=given, held=given + product, peak=given + 2 * product)
    expected |= dict(moved=given + product + 3 * product)
    assert processes.run("account_on_fake_cuda", tmp_path, 1)[0] == expected
