"""Models predict and train on a simulated CUDA device (``benchmarks.fake_cuda``)."""

import re

import pytest
from support.small import CONFIGS, EVERY_PART, ROOT

MATCHES = "fastdetr_mmdet/models/matchers/hungarian_matcher.py:_match_all"
# With DenseProposalLoss, mmdet's assigners read the device a few times per image.
DENSE = ("fastdetr_mmdet/models/proposal_losses/", "mmdet/models/")
DTYPES = ("fp32", "bf16", "fp16")
QUICK = (EVERY_PART[1], "bf16", True)
# One config per model, without mmdet's peers and mmpretrain's backbones.
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
    """With padded images; devices and types match."""
    job = dict(name=name, dtype=dtype, small=small)
    reads = processes.run("on_fake_cuda", tmp_path, 1, **job)[0]
    # without a fused optimizer, torch's float16 scaler reads whether gradients are finite
    step = [x for x in reads["training_step"] if not x.startswith("torch/amp/")]
    own = [x for x in step if not x.startswith(DENSE)]
    assert (reads["inference"], own) == ([], [MATCHES])
    if "fast-detr" not in name:
        assert own == step


def test_what_is_alive_and_moved(processes, tmp_path):
    """A product of 16 x 32 by 32 x 8 in float32; views and freed tensors do not count."""
    product = 4 * 16 * 8
    given = 4 * (16 * 32 + 32 * 8)
    expected = dict(before=given, held=given + product, peak=given + 2 * product)
    expected |= dict(moved=given + product + 3 * product)
    assert processes.run("account_on_fake_cuda", tmp_path, 1)[0] == expected
