"""A file's metadata covers all settings of mmcv's Resize and mmdet's preprocessor."""

from types import SimpleNamespace

import numpy as np
import pytest
from mmcv.transforms import Resize
from mmengine.config import Config

from fastdetr_mmdet.export import ExportError, Preprocessing


def preprocessing(resize=None, more=(), load=None, backbone=None, test_cfg=None, **preprocessor):
    """Preprocessing of a config with changes."""
    pipeline = [
        load or dict(type="LoadImageFromFile"),
        {"type": "Resize", **(resize or dict(scale=(128, 96)))},
        *more,
        dict(type="PackDetInputs"),
    ]
    model = dict(
        backbone=dict(type="ResNet", **(backbone or {})),
        data_preprocessor=preprocessor,
        test_cfg=test_cfg,
    )
    cfg = Config(dict(model=model, test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    return Preprocessing.from_detector(SimpleNamespace(cfg=cfg, dataset_meta=dict(classes="ab")))


@pytest.mark.parametrize("keep_ratio", [False, True])
@pytest.mark.parametrize(
    "size",
    [
        dict(scale=64),
        dict(scale=(128, 96)),
        dict(scale=(96, 128)),
        dict(scale_factor=0.5),
        dict(scale_factor=(0.5, 0.5)),
        dict(scale=64, scale_factor=0.5),
    ],
    ids=str,
)
def test_every_scale_of_mmcv(size, keep_ratio):
    """The page's size from the metadata equals mmcv's."""
    found = preprocessing(dict(size, keep_ratio=keep_ratio))
    image = np.zeros((100, 201, 3), np.uint8)
    resized = Resize(**size, keep_ratio=keep_ratio)(dict(img=image))["img"]
    width, height = 201, 100
    if found.scale is None:
        factors = found.scale_factor
    elif found.keep_ratio:
        factors = 2 * (min(max(found.scale) / 201, min(found.scale) / 100),)
    else:
        factors = found.scale[0] / width, found.scale[1] / height
    expected = [int(side * f + 0.5) for side, f in zip((width, height), factors, strict=True)]
    assert [resized.shape[1], resized.shape[0]] == expected


@pytest.mark.parametrize(
    "change, named",
    [
        (dict(resize=dict(scale=[(64, 64), (96, 96)])), r"scale=\[\(64, 64\), \(96, 96\)\]"),
        (dict(resize=dict(scale=64, backend="pillow")), "pillow"),
        (dict(resize=dict(keep_ratio=True)), "scale_factor"),
        (dict(resize=dict(scale_factor=(0.5, 1.0), keep_ratio=True)), r"\(0.5, 1.0\)"),
        (dict(more=[dict(type="RandomResize", scale=64)]), "RandomResize"),
        (dict(more=[dict(type="mmdet.Pad", size=(64, 64))]), "Pad"),
        (dict(mean=[1.0, 2.0, 3.0], std=[1.0], backbone=dict(in_channels=1)), "in_channels=1"),
    ],
)
def test_what_a_file_cannot_describe_is_named(change, named):
    with pytest.raises(ExportError, match=named):
        preprocessing(**change)


def test_channels_follow_the_model():
    colour = preprocessing(mean=[1, 2, 3], std=[4, 5, 6], bgr_to_rgb=True)
    assert (colour.channels, colour.mean, colour.std) == ("RGB", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    assert preprocessing(mean=[1, 2, 3], std=[4, 5, 6], rgb_to_bgr=True).channels == "RGB"
    assert preprocessing(mean=[1, 2, 3], std=[4, 5, 6]).channels == "BGR"
    shared = preprocessing(mean=[7], std=[8])  # mmdet broadcasts one value
    assert shared.mean == (7.0,) * 3 and shared.std == (8.0,) * 3
    grey = preprocessing(
        mean=[7],
        std=[8],
        backbone=dict(in_channels=1),
        load=dict(type="LoadImageFromFile", color_type="grayscale"),
    )
    assert (grey.channels, grey.mean, grey.color_type) == ("loaded", (7.0,), "grayscale")
    plain = preprocessing(backbone=dict(in_channels=5), load=dict(type="LoadSpectrum"))
    assert (plain.mean, plain.std, plain.loader) == ((0.0,) * 5, (1.0,) * 5, "LoadSpectrum")


def test_transforms_given_as_classes():
    """As in pure Python configs."""
    loader = type("LoadImageFromFile", (), {})
    found = preprocessing(dict(type=Resize, scale=64), load=dict(type=loader))
    assert (found.loader, found.scale) == ("LoadImageFromFile", (64, 64))


@pytest.mark.parametrize(
    "keep_ratio, divisor, dynamic, image_size, scale, pad_to, size",
    [
        (False, 1, False, None, (128, 96), (1, 1), (96, 128)),
        (False, 1, False, (50, 60), (60, 50), (1, 1), (50, 60)),
        (False, 32, False, None, (128, 96), (1, 1), (96, 128)),
        (False, 100, False, None, (128, 96), (100, 200), (100, 200)),
        (False, 1, True, None, (128, 96), (1, 1), (96, 128)),
        (True, 1, True, None, (128, 96), (1, 1), (96, 128)),
        (True, 32, True, (50, 60), (128, 96), (32, 32), (64, 64)),
        (True, 1, False, None, (128, 96), (128, 128), (128, 128)),
        (True, 1, False, (50, 60), (60, 50), (50, 60), (50, 60)),
        (True, 160, False, None, (128, 96), (160, 160), (160, 160)),
    ],
)
def test_size_of_a_file(keep_ratio, divisor, dynamic, image_size, scale, pad_to, size):
    """Padded like the model's, or to a fixed size if images keep their aspect ratio."""
    of_model = preprocessing(
        dict(scale=(128, 96), keep_ratio=keep_ratio), pad_size_divisor=divisor, pad_value=1
    )
    found, actual = of_model.for_file(dynamic, image_size)
    assert (found.scale, found.pad_to, actual) == (scale, pad_to, size)
    assert found.pad_value == 1.0


def test_separate_sizes_are_not_padded():
    apart = preprocessing(test_cfg=dict(separate_sizes=True), pad_size_divisor=32)
    assert apart.pad_to == (1, 1)


def test_a_scale_factor_needs_an_image_size():
    factor = preprocessing(dict(scale_factor=0.5))
    with pytest.raises(ExportError, match="--image-size"):
        factor.for_file(dynamic=True, image_size=None)
    found, size = factor.for_file(dynamic=False, image_size=(64, 96))
    assert found.scale is None and found.pad_to == size == (64, 96)
