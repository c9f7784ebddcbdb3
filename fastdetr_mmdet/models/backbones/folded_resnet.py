"""ResNet with frozen batch norms folded into convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from mmdet.models.backbones import ResNet
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...ops.eager import on_plain_cpu, plain_for_gradients
from ...structures.boxes import at_least_float32

_Pair = tuple[Tensor, Tensor]


@MODELS.register_module()
class FoldedResNet(ResNet):
    """mmdet's ResNet with frozen batch norms folded into the convolutions; same results.

    Paper: ResNet, He et al. 2016, arXiv 1512.03385; freezing of batch norms as in DETR, Carion et
    al. 2020, arXiv 2005.12872, Sec. 4.

    A frozen batch norm (``norm_eval=True``, the DETR family's setting) is a scale and a shift per
    channel. Both are folded into the weight and bias of the convolution before it, so the maps
    between the two are neither computed nor kept for the gradient. Training folds in every step,
    because the convolution's weights change. On the CPU without gradients the folded weights are
    kept until a weight, a statistic or a norm's mode changes. Maps are channels last where
    convolutions are faster that way: on a CPU, and in half precision on a GPU. Norms in training
    mode, other convolutions and plugins are not folded.

    Results equal mmdet's within float32's rounding. Parameter names and arguments are those of
    mmdet's ``ResNet``.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the stages named by ``out_indices``.

        Shape:
            x: (bs, 3, H, W)
            returns: per stage (bs, channels, h, w)
        """
        if self._channels_last(x):
            x = x.contiguous(memory_format=torch.channels_last)
        folds = _folds_of(self, x)
        if self.deep_stem:
            x = self.stem(x)
        else:
            x = F.relu_(folds.convolve(x, self.conv1, self.norm1))
        x = self.maxpool(x)
        outs = []
        for index, name in enumerate(self.res_layers):
            for block in getattr(self, name):
                x = _run_block(block, x, folds)
            if index in self.out_indices:
                outs.append(plain_for_gradients(x))
        return tuple(outs)

    def _channels_last(self, x: Tensor) -> bool:
        if x.is_cuda:  # no argument means CUDA; torch 2.3 accepts none
            return x.dtype in (torch.float16, torch.bfloat16) or torch.is_autocast_enabled()
        if x.device.type != "cpu":
            return False
        return not torch.is_grad_enabled() or not any(map(_is_unsafe, self.modules()))


def _is_unsafe(module: nn.Module) -> bool:
    """Whether oneDNN's weight gradient may write out of bounds; see plain_for_gradients."""
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.in_channels < 16
    )


class _Folds:
    """Frozen norms folded into the convolutions before them.

    Args:
        norms: Frozen norms.
        sources: Every weight and statistic, to keep folded weights until one changes; empty: keep
            none.
    """

    def __init__(self, norms: Sequence[Any], sources: Sequence[Tensor] = ()) -> None:
        self.norms, self.sources = norms, sources
        self.scales = _scales_and_shifts(norms)
        self.kept: dict[nn.Module, _Pair] | None = None
        if sources:
            self.kept = {}
            self.stamps = _stamps(sources)
            self.probes = [x.detach()[(-1,) * x.dim()].view(1) for x in sources]
            self.probed = torch.cat(self.probes)

    def still_hold(self, norms: Sequence[Any], sources: Sequence[Tensor]) -> bool:
        """Whether the norms are unchanged since folding.

        Writing to ``.data``, as an EMA hook does, does not raise a tensor's version, so one number
        of every tensor is compared, too.
        """
        same = norms == self.norms and _stamps(sources) == self.stamps
        return same and torch.equal(torch.cat(self.probes), self.probed)

    def convolve(self, x: Tensor, conv: nn.Module, norm: nn.Module) -> Tensor:
        """Apply convolution and norm, as one convolution if the norm is frozen."""
        if type(conv) is not nn.Conv2d or conv.padding_mode != "zeros" or norm not in self.scales:
            return norm(conv(x))
        pair = self.kept.get(conv) if self.kept is not None else None
        if pair is None:
            pair = _fold(conv, *self.scales[norm], x)
            if self.kept is not None:
                self.kept[conv] = pair
        return F.conv2d(x, *pair, conv.stride, conv.padding, conv.dilation, conv.groups)


# Not an attribute of the model, because models are copied, pickled and compared.
_KEPT: WeakKeyDictionary[nn.Module, _Folds] = WeakKeyDictionary()


def _folds_of(model: nn.Module, x: Tensor) -> _Folds:
    modules = list(model.modules())
    norms = [module for module in modules if _is_frozen(module)]
    if torch.is_grad_enabled() or not on_plain_cpu(x):
        return _Folds(norms)
    tensors = (t for m in modules for t in (*m._parameters.values(), *m._buffers.values()))
    sources = [t for t in tensors if t is not None and t.is_floating_point()]
    if any(t.is_inference() for t in sources):  # inference tensors have no version
        return _Folds(norms)
    folds = _KEPT.get(model)
    if folds is None or not folds.still_hold(norms, sources):
        folds = _KEPT[model] = _Folds(norms, sources)
    return folds


def _stamps(tensors: Sequence[Tensor]) -> list[tuple[int, int, int]]:
    return [(id(t), t._version, t.data_ptr()) for t in tensors]


def _fold(conv: nn.Conv2d, scale: Tensor, shift: Tensor, x: Tensor) -> _Pair:
    """Weight and bias of the folded convolution."""
    weight = conv.weight
    if x.is_contiguous(memory_format=torch.channels_last):
        # Otherwise the convolution and its gradient would each make this copy.
        weight = weight.contiguous(memory_format=torch.channels_last)
    bias = shift
    if conv.bias is not None:
        bias = torch.addcmul(shift, at_least_float32(conv.bias), scale)
    return (weight * scale[:, None, None, None]).to(weight.dtype), bias.to(weight.dtype)


def _run_block(block: Any, x: Tensor, folds: _Folds) -> Tensor:
    """Run a block; call the block itself if it has nothing to fold."""
    if type(block) not in (BasicBlock, Bottleneck) or getattr(block, "with_plugins", False):
        return block(x)
    if block.with_cp and x.requires_grad:
        return F.relu_(checkpoint(_run_branches, block, x, folds, use_reentrant=False))
    return F.relu_(_run_branches(block, x, folds))


def _run_branches(block: Any, x: Tensor, folds: _Folds) -> Tensor:
    out = F.relu_(folds.convolve(x, block.conv1, block.norm1))
    out = folds.convolve(out, block.conv2, block.norm2)
    if isinstance(block, Bottleneck):
        out = folds.convolve(F.relu_(out), block.conv3, block.norm3)
    return out.add_(x if block.downsample is None else _downsample(block.downsample, x, folds))


def _downsample(layers: nn.Sequential, x: Tensor, folds: _Folds) -> Tensor:
    *before, conv, norm = layers  # ResNet-D has an average pooling first
    for layer in before:
        x = layer(x)
    return folds.convolve(x, conv, norm)


def _is_frozen(norm: nn.Module) -> bool:
    return (
        isinstance(norm, nn.modules.batchnorm._BatchNorm)
        and not norm.training
        and norm.running_var is not None
        and norm.affine
    )


def _scales_and_shifts(norms: Sequence[Any]) -> dict[nn.Module, _Pair]:
    """Scales and shifts of all norms together: a few operations instead of a few per norm."""
    frozen: dict[nn.Module, _Pair] = {}
    for eps in {norm.eps for norm in norms}:
        alike = [norm for norm in norms if norm.eps == eps]
        weight, bias, mean, var = (
            at_least_float32(torch.cat([getattr(norm, name) for norm in alike]))
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight * torch.rsqrt(var + eps)
        shift = torch.addcmul(bias, mean, scale, value=-1)
        sizes = [norm.num_features for norm in alike]
        pairs = zip(scale.split(sizes), shift.split(sizes), strict=True)
        frozen.update(zip(alike, pairs, strict=True))
    return frozen
