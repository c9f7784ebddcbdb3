"""ResNet whose frozen batch norms cost nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.backbones import ResNet
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Frozen = dict[nn.Module, tuple[Tensor, Tensor]]  # norm -> its scale and shift, (channels,) each


@MODELS.register_module()
class FoldedResNet(ResNet):
    """mmdet's ResNet, the same function of the same weights, computed with less work.

    Paper: ResNet, He et al. 2016, arXiv 1512.03385; freezing of batch norms as in DETR, Carion et
    al. 2020, arXiv 2005.12872, Sec. 4.

    A batch norm that is frozen (``norm_eval=True``, the DETR family's setting) is a scale and a
    shift per channel: they are folded into the weight and bias of the convolution before it, anew
    in every step, because the convolution goes on learning. What lies between the two need then be
    neither computed nor kept for the gradient. The maps are laid out channels last where that is
    what the machine's convolutions want: on a CPU, and in half precision on a GPU. Norms in
    training mode, other convolutions and plugins are left as they are.

    Results equal mmdet's within float32's rounding; parameters have the same names. Takes what
    mmdet's ``ResNet`` takes.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the stages named by ``out_indices``.

        Shape:
            x: (bs, 3, H, W)
            returns: per stage (bs, channels, h, w)
        """
        if _channels_last(x):
            x = x.contiguous(memory_format=torch.channels_last)
        frozen = _scales_and_shifts([m for m in self.modules() if _is_frozen(m)])
        if self.deep_stem:
            x = self.stem(x)
        else:
            x = F.relu_(_conv_norm(x, self.conv1, self.norm1, frozen))
        x = self.maxpool(x)
        outs = []
        for index, name in enumerate(self.res_layers):
            for block in getattr(self, name):
                x = _run_block(block, x, frozen)
            if index in self.out_indices:
                outs.append(x)
        return tuple(outs)


def _channels_last(x: Tensor) -> bool:
    if x.device.type == "cpu":
        return True
    half = x.dtype in (torch.float16, torch.bfloat16)
    return x.is_cuda and (half or torch.is_autocast_enabled(x.device.type))


def _run_block(block: Any, x: Tensor, frozen: Frozen) -> Tensor:
    """What the block computes; by the block itself where there is nothing to fold."""
    if type(block) not in (BasicBlock, Bottleneck) or getattr(block, "with_plugins", False):
        return block(x)
    if block.with_cp and x.requires_grad:
        return F.relu_(checkpoint(_run_branches, block, x, frozen, use_reentrant=False))
    return F.relu_(_run_branches(block, x, frozen))


def _run_branches(block: Any, x: Tensor, frozen: Frozen) -> Tensor:
    out = F.relu_(_conv_norm(x, block.conv1, block.norm1, frozen))
    out = _conv_norm(out, block.conv2, block.norm2, frozen)
    if isinstance(block, Bottleneck):
        out = _conv_norm(F.relu_(out), block.conv3, block.norm3, frozen)
    return out.add_(x if block.downsample is None else _downsample(block.downsample, x, frozen))


def _downsample(layers: nn.Sequential, x: Tensor, frozen: Frozen) -> Tensor:
    *before, conv, norm = layers  # an average pooling in the variants that have one
    for layer in before:
        x = layer(x)
    return _conv_norm(x, conv, norm, frozen)


def _conv_norm(x: Tensor, conv: nn.Module, norm: nn.Module, frozen: Frozen) -> Tensor:
    """Convolution and norm, as one convolution if the norm is frozen."""
    if type(conv) is not nn.Conv2d or conv.padding_mode != "zeros" or norm not in frozen:
        return norm(conv(x))
    scale, shift = frozen[norm]
    weight = conv.weight
    if x.is_contiguous(memory_format=torch.channels_last):
        # Or the convolution and its gradient would each make this copy.
        weight = weight.contiguous(memory_format=torch.channels_last)
    weight = weight * scale[:, None, None, None]
    bias = shift if conv.bias is None else torch.addcmul(shift, conv.bias, scale)
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def _is_frozen(norm: nn.Module) -> bool:
    return (
        isinstance(norm, nn.modules.batchnorm._BatchNorm)
        and not norm.training
        and norm.running_var is not None
        and norm.affine
    )


def _scales_and_shifts(norms: Sequence[Any]) -> Frozen:
    """Of all norms together: a few operations, and not a few for each of fifty."""
    frozen: Frozen = {}
    for eps in {norm.eps for norm in norms}:
        alike = [norm for norm in norms if norm.eps == eps]
        weight, bias, mean, var = (
            torch.cat([getattr(norm, name) for norm in alike])
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight * torch.rsqrt(var + eps)
        shift = torch.addcmul(bias, mean, scale, value=-1)
        sizes = [norm.num_features for norm in alike]
        pairs = zip(scale.split(sizes), shift.split(sizes), strict=True)
        frozen.update(zip(alike, pairs, strict=True))
    return frozen
