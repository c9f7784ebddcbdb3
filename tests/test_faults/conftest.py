"""The run that the tests interrupt, and how it ends when nothing does."""

from pathlib import Path

import pytest
from forked_runs import Server
from support.runs import ROOT, once

# The demo's model and loop, small, with random numbers everywhere: dropout, augmentation in worker
# processes, order of the images. Only one checkpoint is kept, which leaves nothing to fall back on.
CONFIG = """\
_base_ = '{base}'

model = dict(
    num_queries=10,
    backbone=dict(base_channels=8, stem_channels=8),
    neck=dict(in_channels=[32, 64], out_channels=32),
    transformer=dict(
        embed_dims=32,
        decoder=dict(num_layers=2, num_heads=4, feedforward_channels=48, dropout=0.2)))
image_scale = (64, 64)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
data_root = '{shapes}/'
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=8, num_workers=0, dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=3, val_interval=1)
log_processor = dict(window_size=1)  # log each loss itself, not a mean
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(interval=1, max_keep_ckpts=1, save_best='auto'))
"""


@pytest.fixture(scope="session")
def config(tmp_path_factory, shapes) -> Path:
    """A config file; the base is the demo's."""

    def make(folder: Path) -> None:
        base = (ROOT / "configs/demo/fast-detr_r18_shapes.py").as_posix()
        text = CONFIG.format(base=base, shapes=shapes.as_posix())
        (folder / "faults.py").write_text(text)

    return once(tmp_path_factory, "fault_config", make) / "faults.py"


@pytest.fixture(scope="session")
def server():
    """One for each worker of pytest-xdist."""
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def whole(tmp_path_factory, server, config) -> Path:
    """The work directory of a run that nothing interrupted."""

    def make(folder: Path) -> None:
        result = server.run(config, folder, faults=dict(steps_to=str(folder / "steps.txt")))
        assert result.code == 0, result.output[-4000:]
        (folder / "seconds.txt").write_text(str(result.seconds))

    return once(tmp_path_factory, "whole", make)
