"""Our detectors compute what the official codes compute (shared helpers: support/golden.py)."""

import pytest
from support.golden import CASES, GoldenCase, measure, too_large

# One case of each method, for the second stack too
SMOKE = {"conditional_r50", "deformable_two_stage", "smca_ms_conv", "sam_r50_smca_e12"}
# With these, every part that a method has; the other cases are slow
MAIN = (SMOKE - {"sam_r50_smca_e12"}) | {"deformable_base", "smca_ss_type3", "sam_ms_smca_e50"}


def marks(name):
    return [pytest.mark.smoke] * (name in SMOKE) + [pytest.mark.slow] * (name not in MAIN)


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in CASES])
def test_equals_official_code(name):
    assert too_large(measure(GoldenCase(name))) == []
