"""Box formats and logit space."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_xyxy_to_cxcywh
from support.tolerances import assert_near

from fastdetr_mmdet.structures.boxes import (
    add_reference,
    cxcywh_to_xyxy,
    inverse_sigmoid,
    xyxy_to_cxcywh,
)


def test_formats_equal_those_of_mmdet():
    boxes = torch.rand(3, 5, 4)
    assert_near(cxcywh_to_xyxy(boxes), bbox_cxcywh_to_xyxy(boxes))
    assert_near(xyxy_to_cxcywh(boxes), bbox_xyxy_to_cxcywh(boxes))


@settings(max_examples=100, deadline=None)
@given(st.floats(-11, 11))
def test_inverse_sigmoid_inverts_within_its_clamp(logit):
    logit = torch.tensor(logit)
    assert_near(
        inverse_sigmoid(logit.sigmoid()), logit, rtol=0, atol=2e-2 + 1e-5 * logit.abs().exp()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_inverse_sigmoid_clamps_as_the_official_codes_do(dtype):
    """In float32: at half precision 1 - 1e-5 is 1."""
    logits = inverse_sigmoid(torch.tensor([-0.5, 0.0, 0.5, 1.0, 1.5], dtype=dtype))
    assert logits.dtype == torch.float32
    assert_near(logits, torch.tensor([-11.5129, -11.5129, 0.0, 11.5129, 11.5129]))


@pytest.mark.parametrize("dims", [None, 2, 4])
def test_a_reference_moves_the_coordinates_that_it_has(dims):
    delta, reference = torch.randn(2, 3, 4), dims and torch.randn(2, 3, dims)
    expected = delta.clone()
    if dims:
        expected[..., :dims] += reference
    assert torch.equal(add_reference(delta, reference), expected)


def test_reference_is_added_in_float32():
    half = torch.full((1, 4), 0.123, dtype=torch.bfloat16)
    assert add_reference(half, None).dtype == torch.float32
    assert torch.equal(add_reference(half, half[:, :2])[:, :2], 2 * half[:, :2].float())
