"""The one detector: backbone, neck, transformer and head, each chosen by the config."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmengine.model import ModuleList
from torch import Tensor

from ...checkpoints.backbones import load_local_weights
from ...structures import DecoderOutput, Memory, Targets
from ...structures.padding import host_shapes, level_masks
from ..contracts import check_flow, contract
from ..layers.positions import encode_whole
from ..parts import Field
from ..queries import DenoisingQueries


@MODELS.register_module()
class FastDETR(BaseDetector):
    """A DETR whose parts are registered modules.

    Paper: none; the papers are in the parts.

    images - backbone - neck - ``Memory`` - transformer - ``DecoderOutput`` - head.

    Args:
        backbone: mmdet backbone config.
        transformer: ``DetrTransformer`` config.
        bbox_head: ``FastDETRHead`` config.
        neck: mmdet neck config; its outputs must be ``transformer.embed_dims`` wide.
        aux_heads: Configs of mmdet's dense heads, such as ``ATSSHead``, that are trained with the
            transformer and not used in prediction (Co-DETR, arXiv 2211.12860, Sec. 3.1). Their
            losses are named ``aux0.loss_cls`` and so on; num_classes is the bbox_head's.
            Checkpoints with and without these heads load.
        aux_heads_on: Maps that aux_heads read: 'neck', or 'encoder' as in Co-DETR.
        positional_encoding: mmdet positional encoding config; default: the normalised sine encoding
            of the transformer's width.
        mask_from: Per level the index of the level whose padding mask its own mask is interpolated
            from. None, for one or all levels: from the image's mask, as in all papers. SMCA's
            official multi-scale code interpolates the last level's mask from the third's.
        num_queries: Queries per image; None leaves it to ``transformer.queries``.
        train_cfg: Passed to the head: ``assigner``, ``one_to_many``.
        test_cfg: Passed to the head, except ``separate_sizes``. Its default False, as in the
            official codes: images of different sizes are padded to one batch. The padding changes
            results, because the backbone's convolutions and some parts read it. True: ``predict``
            runs one unpadded batch per image size, so an image gives the same result in every
            batch.
        data_preprocessor: ``DetDataPreprocessor`` config.
        init_cfg: As in mmengine.

    Raises:
        ValueError: if widths, levels or query numbers of the parts differ, if train_cfg or test_cfg
            differs from the head's, or if aux_heads_on is unknown.
    """

    def __init__(
        self,
        backbone: dict,
        transformer: dict,
        bbox_head: dict,
        neck: dict | None = None,
        aux_heads: Sequence[dict] = (),
        aux_heads_on: Literal["neck", "encoder"] = "neck",
        positional_encoding: dict | None = None,
        mask_from: Sequence[int | None] | None = None,
        num_queries: int | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        transformer = dict(transformer)
        if not transformer.get("queries") or not transformer.get("decoder"):
            raise ValueError(
                "transformer needs 'queries' and 'decoder', for example "
                "queries=dict(type='LearnedQueries') and decoder=dict(type='DetrDecoder')."
            )
        if aux_heads_on not in ("neck", "encoder"):
            raise ValueError(f"aux_heads_on={aux_heads_on!r} must be 'neck' or 'encoder'.")
        if num_queries is not None:
            transformer["queries"] = _with_num_queries(transformer["queries"], num_queries)
        transformer["queries"] = _with_num_classes(transformer["queries"], bbox_head)
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck) if neck is not None else None
        self.transformer = MODELS.build(transformer)
        embed_dims = self.transformer.embed_dims
        self.positional_encoding = MODELS.build(
            positional_encoding or dict(type="SinePositionalEncoding", normalize=True),
            default_args=dict(num_feats=embed_dims // 2),
        )
        self.mask_from = mask_from
        self.separate_sizes = bool((test_cfg or {}).get("separate_sizes", False))
        makes = contract("transformer.queries", self.transformer.queries).makes
        two_stage = Field.PROPOSALS in makes
        # These follow from other parts, so they override the config.
        decided = dict(
            num_pred_layer=self.transformer.decoder.num_layers + int(two_stage),
            as_two_stage=two_stage,
            class_aware_proposals=Field.CLASSES in makes,
            residual_classes=Field.LOGITS in makes,
        )
        for key, given in (("train_cfg", train_cfg), ("test_cfg", test_cfg)):
            own = bbox_head.get(key)
            if None not in (own, given) and own != given:
                raise ValueError(
                    f"model.bbox_head.{key}={own} and model.{key}={given} disagree; set "
                    f"model.{key} only."
                )
        self.bbox_head = MODELS.build(
            dict(bbox_head, **decided),
            default_args=dict(embed_dims=embed_dims, train_cfg=train_cfg, test_cfg=test_cfg),
        )
        if self.bbox_head.proposal_loss is not None and Field.DENSE not in makes:
            raise ValueError(
                "bbox_head.proposal_loss needs the proposals of all tokens, which "
                f"{type(self.transformer.queries).__name__} does not make; use TwoStageQueries "
                "with supervise='all'."
            )
        shared = dict(num_classes=self.bbox_head.num_classes)
        self.aux_heads = ModuleList(MODELS.build(x, default_args=shared) for x in aux_heads)
        self.aux_heads_on = aux_heads_on
        self._register_load_state_dict_pre_hook(_leave_aux_heads, with_module=True)
        queries, num_classes = self.transformer.queries, self.bbox_head.num_classes
        if isinstance(queries, DenoisingQueries) and queries.num_classes != num_classes:
            raise ValueError(
                f"transformer.queries.num_classes={queries.num_classes} differs from "
                f"bbox_head.num_classes={num_classes}; set both to the same number."
            )
        if self.bbox_head.train_cfg.get("one_to_many") and not getattr(
            self.transformer.decoder, "mixed_supervision", False
        ):
            raise ValueError(
                "train_cfg.one_to_many is for decoders with mixed_supervision=True; set it in "
                "transformer.decoder, or leave one_to_many out."
            )
        self._check_widths(neck)
        check_flow(self.transformer.parts, _num_levels(backbone, neck))

    def init_weights(self) -> None:
        """As in mmdet; local files of backbone weights may also have key names of other codes."""
        load_local_weights(self.backbone)
        super().init_weights()

    def _check_widths(self, neck: dict | Sequence[dict] | None) -> None:
        embed_dims = self.transformer.embed_dims
        if self.bbox_head.embed_dims != embed_dims:
            raise ValueError(
                f"bbox_head.embed_dims={self.bbox_head.embed_dims} differs from "
                f"transformer.embed_dims={embed_dims}; leave it out of bbox_head, which takes the "
                "transformer's."
            )
        last = neck if neck is None or isinstance(neck, dict) else neck[-1]
        neck_dims = (last or {}).get("out_channels", embed_dims)
        if neck_dims != embed_dims:
            raise ValueError(
                f"neck.out_channels={neck_dims} differs from transformer.embed_dims={embed_dims}; "
                "set both to the same width."
            )
        pos_dims = self.positional_encoding(torch.zeros(1, 1, 1, dtype=torch.bool)).shape[1]
        if pos_dims != embed_dims:
            raise ValueError(
                f"positional_encoding makes {pos_dims} features, but transformer.embed_dims="
                f"{embed_dims}; set its num_feats to {embed_dims // 2} or leave it out."
            )

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Feature maps.

        Shape:
            batch_inputs: (bs, 3, H, W), normalised and padded; float32 or of the weights' type
            returns: per level (bs, embed_dims, h, w), finest first
        """
        if batch_inputs.dtype == torch.float32:  # data preprocessors always make float32
            batch_inputs = batch_inputs.to(next(self.parameters()).dtype)
        features = self.backbone(batch_inputs)
        return features if self.neck is None else self.neck(features)

    def make_memory(
        self, features: Sequence[Tensor], batch_inputs: Tensor, batch_data_samples: Any
    ) -> Memory:
        """Flatten feature maps, with masks and positional encodings.

        Without data samples, or without ``img_shape`` in them, every image fills its input.
        """
        batch_size = (batch_inputs.shape[-2], batch_inputs.shape[-1])
        if batch_data_samples is None:
            image_sizes = [batch_size] * len(batch_inputs)
        else:
            _set_img_shapes(batch_inputs, batch_data_samples)
            image_sizes = [tuple(s.metainfo["img_shape"][:2]) for s in batch_data_samples]
        level_sizes = [(feature.shape[-2], feature.shape[-1]) for feature in features]
        device = batch_inputs.device
        masks, valid_ratios = level_masks(
            image_sizes, batch_size, level_sizes, mask_from=self.mask_from
        )
        valid_shapes = None
        if masks is not None:
            valid_shapes = host_shapes(valid_ratios, level_sizes)
            masks = [mask.to(device, non_blocking=True) for mask in masks]
        valid_ratios = valid_ratios.to(device, non_blocking=True)
        pixels = torch.tensor([[w, h] for h, w in image_sizes], dtype=torch.float32)
        pos_maps = []
        for level, feature in enumerate(features):
            if masks is None:  # no padding: all images share one encoding
                pos = encode_whole(self.positional_encoding, level_sizes[level], feature.device)
                pos_maps.append(pos.expand(len(feature), -1, -1, -1))
            else:
                pos_maps.append(self.positional_encoding(masks[level]))
        pixels = pixels.to(device, non_blocking=True)
        return Memory.from_maps(list(features), pos_maps, valid_ratios, masks, pixels, valid_shapes)

    def forward_transformer(
        self, batch_inputs: Tensor, batch_data_samples: Any, targets: Targets | None = None
    ) -> DecoderOutput:
        """From images to decoder outputs; ``targets`` in training."""
        # No variable holds the maps, so they are freed before the transformer runs.
        memory = self.make_memory(self.extract_feat(batch_inputs), batch_inputs, batch_data_samples)
        return self._transform(memory, targets)

    def _transform(self, memory: Memory, targets: Targets | None) -> DecoderOutput:
        head = self.bbox_head
        return self.transformer(memory, head.box_branches, head.proposal_branches, targets)

    def loss(self, batch_inputs: Tensor, batch_data_samples: Sequence) -> dict[str, Tensor]:
        """Losses of a batch under mmdet's names; see ``FastDETRHead.loss``.

        Shape:
            batch_inputs: (bs, 3, H, W)
        """
        _set_img_shapes(batch_inputs, batch_data_samples)
        targets = Targets.from_data_samples(batch_data_samples, batch_inputs.device)
        features = self.extract_feat(batch_inputs)
        memory = self.make_memory(features, batch_inputs, batch_data_samples)
        output = self._transform(memory, targets)
        losses = self.bbox_head.loss(output, targets)
        if self.aux_heads_on == "encoder":
            assert output.memory is not None
            features = tuple(output.memory.maps())
        head: Any
        for index, head in enumerate(self.aux_heads):
            own = head.loss(features, batch_data_samples)
            losses |= {f"aux{index}.{name}": value for name, value in own.items()}
        return losses

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: Sequence, rescale: bool = True
    ) -> Sequence:
        """The data samples with ``pred_instances``; see ``FastDETRHead.predict``.

        Shape:
            batch_inputs: (bs, 3, H, W)
        """
        if self.separate_sizes:
            for images, samples in _by_size(batch_inputs, batch_data_samples):
                self._predict(images, samples, rescale)
            return batch_data_samples
        return self._predict(batch_inputs, batch_data_samples, rescale)

    def _predict(
        self, batch_inputs: Tensor, batch_data_samples: Sequence, rescale: bool
    ) -> Sequence:
        output = self.forward_transformer(batch_inputs, batch_data_samples)
        results = self.bbox_head.predict(output, batch_data_samples, rescale)
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _forward(
        self, batch_inputs: Tensor, batch_data_samples: Any = None
    ) -> tuple[Tensor, Tensor]:
        """Raw outputs of all layers.

        Shape:
            batch_inputs: (bs, 3, H, W)
            returns: all_layers_cls_scores (num_layers, bs, num_queries, num_classes) logits and
                all_layers_bbox_preds (num_layers, bs, num_queries, 4) normalised (cx, cy, w, h).
        """
        return self.bbox_head(self.forward_transformer(batch_inputs, batch_data_samples))


def _leave_aux_heads(module: Any, state_dict: dict, prefix: str, *_: Any) -> None:
    """Load files with other auxiliary heads: keep weights that a file lacks, drop surplus ones."""
    own = f"{prefix}aux_heads."
    wanted = {f"{own}{key}": value for key, value in module.aux_heads.state_dict().items()}
    for key in [key for key in state_dict if key.startswith(own) and key not in wanted]:
        del state_dict[key]
    for key in wanted.keys() - state_dict.keys():
        state_dict[key] = wanted[key]


def _set_img_shapes(batch_inputs: Tensor, batch_data_samples: Sequence) -> None:
    """Set a missing ``img_shape`` to the size of the input, for data samples made by hand."""
    for sample in batch_data_samples:
        if "img_shape" not in sample.metainfo:
            sample.set_metainfo(dict(img_shape=tuple(batch_inputs.shape[-2:])))


def _by_size(
    batch_inputs: Tensor, batch_data_samples: Sequence
) -> Iterator[tuple[Tensor, list[Any]]]:
    """Batches of images of equal size, without padding, with their data samples."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, sample in enumerate(batch_data_samples):
        h, w = sample.metainfo.get("img_shape", batch_inputs.shape[-2:])[:2]
        groups.setdefault((h, w), []).append(index)
    for (h, w), images in groups.items():
        yield batch_inputs[images, :, :h, :w], [batch_data_samples[index] for index in images]


def _num_levels(backbone: dict, neck: dict | Sequence[dict] | None) -> int | None:
    """Number of feature levels by the configs; None if they do not tell."""
    if neck is not None:
        last = neck if isinstance(neck, dict) else neck[-1]
        channels = last.get("in_channels")  # a number if the neck keeps the backbone's levels
        return last.get("num_outs") or (
            len(channels) if isinstance(channels, (list, tuple)) else None
        )
    return len(backbone["out_indices"]) if "out_indices" in backbone else None


def _with_num_classes(queries: dict, bbox_head: dict) -> dict:
    """Pass the head's number of classes to denoising queries, which draw noisy classes."""
    if str(queries.get("type")).rpartition(".")[2] != DenoisingQueries.__name__:
        return queries
    return {"num_classes": bbox_head.get("num_classes"), **queries}


def _with_num_queries(queries: dict, num_queries: int) -> dict:
    own = queries.get("num_queries", num_queries)
    if own != num_queries:
        raise ValueError(
            f"model.num_queries={num_queries} and model.transformer.queries.num_queries={own} "
            "disagree; set model.num_queries only."
        )
    return dict(queries, num_queries=num_queries)
