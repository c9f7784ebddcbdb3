"""Feature maps of one or more levels as one sequence of tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from ..ops.deformable import level_shapes
from ..ops.eager import is_compiling, plain_for_gradients, written_down

T = TypeVar("T")


class _once(Generic[T]):
    """A property that is computed on first use and cached.

    Unlike ``functools.cached_property`` it has no lock, which would break ``torch.compile``.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self.compute = compute
        self.__doc__ = compute.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        value = self.compute(instance)
        if not is_compiling():
            instance.__dict__[self.compute.__name__] = value
        return value


@dataclass(frozen=True)
class Memory:
    """Feature maps of one or more levels as one sequence of tokens.

    Shape:
        tokens: (bs, num_tokens, embed_dims); num_tokens is the sum of h * w over levels,
            row-major within a level, finest level first.
        pos: (bs, num_tokens, embed_dims), positional encoding, added inside attention only; same
            type as tokens.
        spatial_shapes: one (h, w) of Python ints per level; host data, so that no part has to
            read a device tensor to learn a shape.
        valid_ratios: (bs, num_levels, 2), (w, h) share of the padded map that is image, (0, 1].
        padding_mask: (bs, num_tokens) bool, True on padding (ignored); None when nothing in the
            batch is padded.
        image_sizes: (bs, 2) float32, (w, h) of each un-padded image in pixels; or None.
        valid_shapes: per level and image (h, w) of the un-padded map, host data; None when nothing
            is padded, or if unknown.

    Derived values are computed on first use and cached.
    """

    tokens: Tensor
    pos: Tensor
    spatial_shapes: tuple[tuple[int, int], ...]
    valid_ratios: Tensor
    padding_mask: Tensor | None = None
    image_sizes: Tensor | None = None
    valid_shapes: tuple[tuple[tuple[int, int], ...], ...] | None = None

    def __post_init__(self) -> None:
        expected = sum(h * w for h, w in self.spatial_shapes)
        if self.tokens.shape[1] != expected:
            raise ValueError(
                f"Memory holds {self.tokens.shape[1]} tokens but its spatial_shapes "
                f"{self.spatial_shapes} add up to {expected}; pass the (h, w) of every level."
            )

    @classmethod
    def from_maps(
        cls,
        maps: tuple[Tensor, ...] | list[Tensor],
        pos_maps: tuple[Tensor, ...] | list[Tensor],
        valid_ratios: Tensor,
        masks: list[Tensor] | None = None,
        image_sizes: Tensor | None = None,
        valid_shapes: tuple[tuple[tuple[int, int], ...], ...] | None = None,
    ) -> Memory:
        """Flatten feature maps into a memory; other arguments as of the class.

        Shape:
            maps, pos_maps: per level (bs, embed_dims, h, w).
            masks: per level (bs, h, w) bool, True on padding, or None when nothing is padded.
        """
        tokens = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)
        pos = torch.cat([p.flatten(2).transpose(1, 2) for p in pos_maps], dim=1)
        return cls(
            tokens=tokens,
            pos=pos.to(tokens.dtype),
            spatial_shapes=tuple((m.shape[-2], m.shape[-1]) for m in maps),
            valid_ratios=valid_ratios,
            padding_mask=None if masks is None else torch.cat([m.flatten(1) for m in masks], 1),
            image_sizes=image_sizes,
            valid_shapes=valid_shapes,
        )

    @property
    def num_levels(self) -> int:
        """Number of feature levels."""
        return len(self.spatial_shapes)

    @_once
    def level_sizes(self) -> list[int]:
        """Number of tokens of each level."""
        return [h * w for h, w in self.spatial_shapes]

    @_once
    def level_slices(self) -> list[slice]:
        """Slice of each level's tokens."""
        stops = list(accumulate(self.level_sizes))
        return [slice(*ends) for ends in zip([0, *stops], stops, strict=False)]

    @_once
    def located(self) -> Tensor:
        """Tokens plus positions, (bs, num_tokens, embed_dims)."""
        return self.tokens + self.pos

    @_once
    def attend_mask(self) -> Tensor | None:
        """(bs, 1, 1, num_tokens) bool, True = attend; None when nothing is padded.

        Polarity as in ``scaled_dot_product_attention``, opposite to ``padding_mask``.
        """
        return None if self.padding_mask is None else ~self.padding_mask[:, None, None, :]

    def level(self, index: int) -> Memory:
        """One level as a memory of its own: views, no copy."""
        return self.levels[index]

    @_once
    def levels(self) -> list[Memory]:
        """Every level as a memory of its own."""
        mask = self.padding_mask
        return [
            Memory(
                tokens=self.tokens[:, own],
                pos=self.pos[:, own],
                spatial_shapes=(self.spatial_shapes[index],),
                valid_ratios=self.valid_ratios[:, index : index + 1],
                padding_mask=None if mask is None else mask[:, own],
                image_sizes=self.image_sizes,
                valid_shapes=self.valid_shapes and self.valid_shapes[index : index + 1],
            )
            for index, own in enumerate(self.level_slices)
        ]

    def maps(self) -> list[Tensor]:
        """The tokens as feature maps, per level (bs, embed_dims, h, w)."""
        levels = self.tokens.split(self.level_sizes, dim=1)
        return [
            plain_for_gradients(tokens.transpose(1, 2).unflatten(2, shape))
            for tokens, shape in zip(levels, self.spatial_shapes, strict=True)
        ]

    def grid(self) -> Tensor:
        """Cell centres, normalised to the un-padded image; above 1 on padding.

        Shape:
            returns: (bs, num_tokens, 2), float32 at least, (x, y) = (column + 0.5, row + 0.5) over
                the valid width and height of the level.
        """
        dtype = torch.promote_types(self.tokens.dtype, torch.float32)
        make = _centres if written_down() else _kept_centres
        centres = make(self.spatial_shapes, dtype, self.tokens.device)
        return centres / self._per_token(self._valid_cells())

    def cells(self) -> Tensor:
        """Centre and size of every cell, (bs, num_tokens, 4) (x, y, w, h), as in ``grid``."""
        return torch.cat([self.grid(), self._per_token(1 / self._valid_cells())], dim=-1)

    def _valid_cells(self) -> Tensor:
        """Number of un-padded cells of each level, (bs, num_levels, 2) (w, h).

        Rounded to integers: valid ratios have rounding errors, and two-stage proposals compare
        centres with 0.01 and 0.99.
        """
        shapes, _ = level_shapes(self.spatial_shapes, self.tokens.device)
        return (self.valid_ratios * shapes.flip(-1)).round()

    def _per_token(self, per_level: Tensor) -> Tensor:
        """(bs, num_levels, 2) -> (bs, num_tokens, 2)."""
        levels = zip(per_level.split(1, dim=1), self.level_sizes, strict=True)
        return torch.cat([own.expand(-1, count, -1) for own, count in levels], dim=1)

    def with_tokens(self, tokens: Tensor) -> Memory:
        """The same memory with other tokens."""
        return replace(self, tokens=tokens)


def _centres(
    spatial_shapes: tuple[tuple[int, int], ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Centres (x, y) of the cells of all levels, in cells: (num_tokens, 2)."""
    centres = []
    for h, w in spatial_shapes:
        rows = torch.arange(h, dtype=dtype, device=device) + 0.5
        columns = torch.arange(w, dtype=dtype, device=device) + 0.5
        x, y = columns[None, :].expand(h, -1), rows[:, None].expand(-1, w)
        centres.append(torch.stack([x, y], dim=-1).flatten(0, 1))
    return torch.cat(centres)


_kept_centres = lru_cache(maxsize=64)(_centres)
