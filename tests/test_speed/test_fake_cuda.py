"""Models predict and train on a CUDA device that computes nothing (``benchmarks.fake_cuda``)."""

import pytest
from support.small import CONFIGS, EVERY_PART

MATCHES = "fastdetr_mmdet/models/matchers/hungarian_matcher.py:_match_all"
QUICK = {(EVERY_PART[1], "bf16")}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow)
        for case in ((name, dtype) for name in CONFIGS for dtype in ("fp32", "bf16", "fp16"))
    ],
)
def test_the_host_reads_matches_and_nothing_else(processes, tmp_path, name, dtype):
    """Of padded images, and no device or type is one that does not fit."""
    reads = processes.run("on_fake_cuda", tmp_path, 1, name=name, dtype=dtype)[0]
    assert reads == {"inference": [], "training_step": [MATCHES]}
