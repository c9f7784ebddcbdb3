"""Random memories and queries for tests of single parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch

from fastdetr_mmdet.structures import ConditionalQuery, Memory, Queries, SalientPoints
from fastdetr_mmdet.structures.padding import host_shapes, level_masks
from support.models import EMBED_DIMS, NUM_QUERIES

STRIDE = 8

Structure = TypeVar("Structure", Memory, Queries, SalientPoints, ConditionalQuery)


def make_memory(
    image_sizes=((32, 48), (24, 32)),
    strides: tuple[int, ...] = (STRIDE,),
    embed_dims: int = EMBED_DIMS,
    seed: int = 0,
) -> Memory:
    """Random tokens and positions of images of the given (h, w) in pixels, padded together."""
    generator = torch.Generator().manual_seed(seed)
    batch_size = (max(h for h, _ in image_sizes), max(w for _, w in image_sizes))
    levels = [(-(-batch_size[0] // s), -(-batch_size[1] // s)) for s in strides]
    masks, valid_ratios = level_masks(image_sizes, batch_size, levels)
    shapes = [(len(image_sizes), embed_dims, h, w) for h, w in levels]
    maps, pos = ([torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2))
    in_pixels = torch.tensor([[w, h] for h, w in image_sizes], dtype=torch.float32)
    valid_shapes = None if masks is None else host_shapes(valid_ratios, levels)
    return Memory.from_maps(maps, pos, valid_ratios, masks, in_pixels, valid_shapes)


def make_queries(
    bs: int = 2,
    num_queries: int = NUM_QUERIES,
    embed_dims: int = EMBED_DIMS,
    reference_dims: int = 2,
    seed: int = 0,
) -> Queries:
    """Random queries with references and a spatial part."""
    generator = torch.Generator().manual_seed(seed)
    content, pos, spatial = torch.randn(3, bs, num_queries, embed_dims, generator=generator)
    queries = Queries(content=content, pos=pos, conditional=ConditionalQuery(spatial))
    return queries.with_reference(torch.randn(bs, num_queries, reference_dims, generator=generator))


def only(memory: Memory, image: int) -> Memory:
    """One image, with its padding."""
    part = slice(image, image + 1)
    mask = memory.padding_mask
    return Memory(
        memory.tokens[part],
        memory.pos[part],
        memory.spatial_shapes,
        memory.valid_ratios[part],
        None if mask is None else mask[part],
        None if memory.image_sizes is None else memory.image_sizes[part],
        memory.valid_shapes and tuple(level[part] for level in memory.valid_shapes),
    )


def without_padding(memory: Memory, image: int) -> Memory:
    """One image of a one-level memory, without its padding."""
    (h, w), part = memory.spatial_shapes[0], slice(image, image + 1)
    valid = ~memory.padding_mask[image].view(h, w)
    rows, columns = int(valid[:, 0].sum()), int(valid[0].sum())
    kept = valid.flatten()
    return Memory(
        memory.tokens[part, kept],
        memory.pos[part, kept],
        ((rows, columns),),
        torch.ones(1, 1, 2),
        image_sizes=None if memory.image_sizes is None else memory.image_sizes[part],
    )


def with_other_padding(memory: Memory) -> Memory:
    """The same memory with other content and positions on padding."""
    padding = memory.padding_mask.unsqueeze(-1)
    return replace(
        memory,
        tokens=memory.tokens.masked_fill(padding, 7.0),
        pos=memory.pos.masked_fill(padding, -5.0),
    )


def in_double(structure: Structure) -> Structure:
    """The same in float64, so that only mistakes exceed the tolerance."""
    return _map(structure, lambda x: x.double() if x.is_floating_point() else x)


def queries_of(queries: Queries, image: int) -> Queries:
    """One image's queries."""
    return _map(queries, lambda x: x[image : image + 1])


def _map(structure: Structure, function: Callable[[torch.Tensor], torch.Tensor]) -> Structure:
    """Apply to all tensors, also of structures inside."""
    changed: dict[str, Any] = {}
    for field in fields(structure):
        value = getattr(structure, field.name)
        if isinstance(value, torch.Tensor):
            changed[field.name] = function(value)
        elif isinstance(value, (SalientPoints, ConditionalQuery)):
            changed[field.name] = _map(value, function)
    return replace(structure, **changed)
