"""Detectors give the official codes' results (helpers: support/golden.py)."""

import math

import numpy as np
import pytest
import torch
from support.golden import CASES, Errors, GoldenCase, measure, too_large

# One case per method, also for the second stack.
SMOKE = {"conditional_r50", "deformable_two_stage", "smca_ms_conv", "sam_r50_smca_e12"}
# Together with these, every part of the methods; other cases are slow.
MAIN = (SMOKE - {"sam_r50_smca_e12"}) | {"deformable_base", "smca_ss_type3", "sam_ms_smca_e50"}


def marks(name):
    return [pytest.mark.smoke] * (name in SMOKE) + [pytest.mark.slow] * (name not in MAIN)


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in CASES])
def test_equals_official_code(name):
    assert too_large(measure(GoldenCase(name))) == []


def test_nan_is_an_error_that_stays():
    errors, zero = Errors(), torch.zeros(2)
    for found in (zero, zero * math.nan, zero):
        errors.note("pos", found, np.zeros(2))
    assert math.isnan(errors["pos"])
