"""Results of the viewer as plain NumPy arrays, for custom plots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class InspectedLayer:
    """One query in one decoder layer; fields that the model does not have are None.

    All positions are pixels of the original image, (x, y) with (0, 0) at the corner of the first
    pixel. A map of a level covers the image without padding: the cell in row r and column c of (h,
    w) is centred at ((c + 0.5) / w, (r + 0.5) / h) of the image, as in the model.

    Shape:
        box: (4,), predicted x1, y1, x2, y2, clipped to the image.
        scores: (num_classes,), [0, 1].
        levels: indices of the feature levels of the layer, 0 is the finest; the order of maps and
            points below.
        reference: (2,) point, or (4,) x1, y1, x2, y2, not clipped, the layer's input.
        weights: per level (num_heads, h, w), attention weights in [0, 1]; they add up to 1 over
            levels and cells, except for weights on padding.
        prior_logits: per level (num_heads or 1, h, w), spatial prior, added to the scores.
        level_weights: (num_levels,), scale selection, [0, 1].
        salient_points: (num_heads, 2), found by the aligner within ``reference``.
        points: (num_heads, num_levels, num_points, 2), sampling points of deformable attention.
        point_weights: (num_heads, num_levels, num_points), [0, 1], adding up to 1 per head.
    """

    box: np.ndarray
    scores: np.ndarray
    levels: tuple[int, ...]
    reference: np.ndarray | None = None
    weights: tuple[np.ndarray, ...] | None = None
    prior_logits: tuple[np.ndarray, ...] | None = None
    level_weights: np.ndarray | None = None
    salient_points: np.ndarray | None = None
    points: np.ndarray | None = None
    point_weights: np.ndarray | None = None

    @property
    def prior(self) -> tuple[np.ndarray, ...] | None:
        """Per level (num_heads or 1, h, w): exp of the logits, [0, 1] (SMCA's G, Eq. 5).

        Priors with values above 0 are scaled to a peak of 1.
        """
        if self.prior_logits is None:
            return None
        peak = max(0.0, *(float(logits.max()) for logits in self.prior_logits))
        return tuple(np.exp(logits - peak) for logits in self.prior_logits)

    @property
    def attention(self) -> tuple[np.ndarray, ...] | None:
        """Per level (h, w): mean of the weights over heads."""
        return None if self.weights is None else tuple(maps.mean(0) for maps in self.weights)


@dataclass(frozen=True)
class InspectedQuery:
    """One query on its way through the decoder.

    ``label`` and ``score`` are the best class of the last layer and its probability, ``query`` the
    index of the query; ``layers`` has one entry per decoder layer, first layer first.
    """

    query: int
    label: int
    score: float
    layers: tuple[InspectedLayer, ...]

    @property
    def box(self) -> np.ndarray:
        """(4,), the detection: x1, y1, x2, y2 in pixels."""
        return self.layers[-1].box

    def layer(self, index: int | None = None) -> InspectedLayer:
        """A layer, counted from 1; None: the last.

        Raises:
            ValueError: if there is no such layer.
        """
        if index is None:
            return self.layers[-1]
        if not 1 <= index <= len(self.layers):
            raise ValueError(
                f"There is no decoder layer {index}; the model has {len(self.layers)}, counted "
                "from 1."
            )
        return self.layers[index - 1]


@dataclass(frozen=True)
class InspectedImage:
    """An image with its inspected queries: top-scoring, or ``chosen`` by number.

    Top-scoring queries are in descending order, chosen ones in the given order. ``file`` is the
    image's file name, or "".

    Shape:
        image: (H, W, 3) uint8 RGB, before the pipeline.
    """

    image: np.ndarray
    queries: tuple[InspectedQuery, ...]
    classes: tuple[str, ...]
    chosen: bool = False
    file: str = ""

    def name(self, label: int) -> str:
        """Class name, or number if the model has no names."""
        return self.classes[label] if label < len(self.classes) else f"class {label}"
