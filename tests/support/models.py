"""A detector small enough for unit tests, and batches to feed it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

NUM_CLASSES = 5
NUM_QUERIES = 10
EMBED_DIMS = 32
NUM_HEADS = 4


def tiny_config(**overrides) -> ConfigDict:
    """Model config of a small Conditional DETR.

    Overrides are merged into it; a double underscore stands for the dot of --cfg-options:
    ``tiny_config(transformer__decoder__refine=True)``.
    """
    layer = dict(num_heads=NUM_HEADS, feedforward_channels=48, dropout=0.0)
    model = dict(
        type="FastDETR",
        num_queries=NUM_QUERIES,
        data_preprocessor=dict(
            type="DetDataPreprocessor",
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True,
        ),
        backbone=tiny_backbone(out_indices=(3,)),
        neck=dict(
            type="ChannelMapper",
            in_channels=[64],
            kernel_size=1,
            out_channels=EMBED_DIMS,
            act_cfg=None,
            norm_cfg=None,
            num_outs=1,
        ),
        transformer=dict(
            type="DetrTransformer",
            embed_dims=EMBED_DIMS,
            encoder=dict(type="DetrEncoder", num_layers=2, **layer),
            queries=dict(type="LearnedQueries", content="zero", reference="mlp"),
            decoder=dict(type="ConditionalDecoder", num_layers=3, **layer),
        ),
        bbox_head=dict(type="FastDETRHead", num_classes=NUM_CLASSES),
    )
    config = Config(dict(model=model))
    config.merge_from_dict(
        {f"model.{key.replace('__', '.')}": value for key, value in overrides.items()}
    )
    return config.model


def tiny_backbone(out_indices: tuple[int, ...]) -> dict:
    """ResNet-18 with an eighth of the width: 8, 16, 32, 64 channels at strides 4, 8, 16, 32."""
    return dict(
        type="ResNet",
        depth=18,
        base_channels=8,
        stem_channels=8,
        num_stages=4,
        out_indices=out_indices,
        norm_cfg=dict(type="BN", requires_grad=False),
        norm_eval=True,
        style="pytorch",
    )


# Overrides for tiny_config: three levels, strides 8, 16 and 32.
THREE_LEVELS = dict(
    backbone=tiny_backbone(out_indices=(1, 2, 3)),
    neck__in_channels=[16, 32, 64],
    neck__num_outs=3,
)


def tiny_model(seed: int = 0, **overrides) -> nn.Module:
    """The detector of ``tiny_config``, in training mode, with ``randomise``d weights."""
    torch.manual_seed(seed)
    # train() applies norm_eval, which the constructor does not
    return randomise(MODELS.build(tiny_config(**overrides)), seed).train()


def build_part(type: str, scale: float = 0.1, **options) -> nn.Module:
    """A registered part with ``randomise``d weights, EMBED_DIMS wide if the options do not tell."""
    torch.manual_seed(0)
    return randomise(MODELS.build(dict(type=type, embed_dims=EMBED_DIMS) | options), scale=scale)


def randomise(module: nn.Module, seed: int = 0, scale: float = 0.1) -> nn.Module:
    """Add noise to every parameter, so that none is zero or equal to another."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise.to(parameter.device) * scale)
    return module


def make_batch(
    sizes: Sequence[tuple[int, int]] = ((64, 96), (48, 64)),
    objects: Sequence[int] | int = 2,
    num_classes: int = NUM_CLASSES,
    scale_factor: tuple[float, float] = (1.0, 1.0),
    seed: int = 0,
) -> tuple[Tensor, list[DetDataSample]]:
    """Random images of the given (h, w), padded at right and bottom, with random objects.

    Args:
        sizes: Sizes of the network's input images.
        objects: Number of objects, per image or equal for all.
        num_classes: Upper limit of labels.
        scale_factor: (w, h) of the network's image over the original one.
        seed: Random seed.
    """
    generator = torch.Generator().manual_seed(seed)
    counts = [objects] * len(sizes) if isinstance(objects, int) else list(objects)
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    inputs = torch.zeros(len(sizes), 3, height, width)
    samples = []
    for index, ((h, w), count) in enumerate(zip(sizes, counts, strict=True)):
        inputs[index, :, :h, :w] = torch.randn(3, h, w, generator=generator)
        sample = DetDataSample(
            metainfo=dict(
                img_id=index,
                img_shape=(h, w),
                ori_shape=(round(h / scale_factor[1]), round(w / scale_factor[0])),
                scale_factor=scale_factor,
                batch_input_shape=(height, width),
                pad_shape=(height, width),
            )
        )
        corners = torch.rand(count, 2, 2, generator=generator).sort(dim=1).values
        sample.gt_instances = InstanceData(
            bboxes=corners.flatten(1) * torch.tensor([w, h, w, h]),
            labels=torch.randint(num_classes, (count,), generator=generator),
        )
        samples.append(sample)
    return inputs, samples


def pick(inputs: Tensor, samples: Sequence[DetDataSample], index: int) -> tuple[Tensor, list]:
    """One image of a batch as a batch, on the same canvas (CNNs see the padding)."""
    return inputs[index : index + 1], [samples[index]]


def total(losses: dict[str, Tensor]) -> Tensor:
    """The sum that mmengine optimises."""
    return torch.stack([loss.sum() for loss in losses.values()]).sum()


def check_trains(model: nn.Module, *batch) -> dict[str, Tensor]:
    """Check that all parameters get a finite gradient, as DDP needs it; return the losses."""
    losses = model.train().loss(*batch)
    model.parse_losses(losses)[0].backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    return losses
