"""Models predict and train on a CUDA device that computes nothing (``benchmarks.fake_cuda``)."""

import pytest
from support.small import CONFIGS, EVERY_PART

MATCHES = "fastdetr_mmdet/models/matchers/hungarian_matcher.py:_match_all"
QUICK = {EVERY_PART[0]}


@pytest.mark.parametrize(
    "name", [pytest.param(c, marks=[] if c in QUICK else pytest.mark.slow) for c in CONFIGS]
)
def test_the_host_reads_matches_and_nothing_else(processes, tmp_path, name):
    """Of padded images, in every precision; no device or type that does not fit."""
    dtypes = ["fp32", "bf16", "fp16"]
    reads = processes.run("on_fake_cuda", tmp_path, 1, name=name, dtypes=dtypes)[0]
    assert reads == {dtype: [[], [MATCHES]] for dtype in dtypes}
