"""SAM-DETR's positional encoding: cell centres on the image, official values on padding."""

import math

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from support.tolerances import GOLDEN, assert_near

FEATS = 16
# Valid (h, w) of 20 x 32 cells: all, a part, padding in one direction only, one cell.
VALID = ((20, 32), (13, 21), (20, 5), (3, 32), (1, 1))


@pytest.fixture
def mask():
    mask = torch.ones(len(VALID), 20, 32, dtype=torch.bool)
    for image, (h, w) in enumerate(VALID):
        mask[image, :h, :w] = False
    return mask


def build(**kwargs):
    return MODELS.build(dict(type="SAMSinePositionalEncoding", num_feats=FEATS, **kwargs))


def angle(
    inside: np.ndarray, cell: int, eps: float = 1e-6, scale: float = 2 * math.pi
) -> np.float32:
    """Angle of one cell of a row or column, step by step in float32, like the official code."""
    count, all_ = (np.float32(inside[:end].sum()) for end in (cell + 1, len(inside)))
    half = np.float32(0.5)
    return (count - half) / ((all_ - half) + np.float32(eps) + half) * np.float32(scale)


@pytest.mark.parametrize("options", [dict(), dict(eps=2e-6, scale=3.3)], ids=str)
def test_everywhere_it_is_the_official_formula(mask, options, temperature=20):
    """On fully padded rows and columns it divides by about 1e-6, which depends on rounding."""
    encoded = build(temperature=temperature, **options)(mask)
    exponents = 2 * torch.div(torch.arange(FEATS), 2, rounding_mode="floor") / FEATS
    wave_lengths = (temperature**exponents).numpy()
    inside = ~mask.numpy()
    largest = 0.0
    for image, (h, w) in enumerate(VALID):
        # the image, its border, and padding at its side, below it and in the corner
        rows = sorted({0, h // 2, h - 1, min(h, 19), 19})
        columns = sorted({0, w // 2, w - 1, min(w, 31), 31})
        for row in rows:
            for column in columns:
                y = angle(inside[image, :, column], row, **options)
                x = angle(inside[image, row], column, **options)
                largest = max(largest, float(abs(y)), float(abs(x)))
                features = []
                for own in (y, x):
                    for feature, wave_length in enumerate(wave_lengths):
                        exact = float(np.float32(own / wave_length))
                        features.append((math.cos if feature % 2 else math.sin)(exact))
                found = encoded[image, :, row, column]
                assert_near(found, torch.tensor(features), rtol=0, atol=GOLDEN["pos"])
    assert largest > 5e5


def test_is_in_float32_and_does_not_depend_on_other_images(mask):
    encoded = build()(mask)
    assert encoded.dtype == torch.float32
    assert torch.isfinite(encoded).all()
    for image in range(len(VALID)):
        assert torch.equal(build()(mask[image : image + 1])[0], encoded[image])


@pytest.mark.parametrize("option", [dict(normalize=False), dict(offset=0.0)])
def test_refuses_what_it_decides_itself(option):
    with pytest.raises(
        TypeError, match=f"multiple values for keyword argument '{next(iter(option))}'"
    ):
        build(**option)
