"""Record outputs of mmdet's DINO: ``python tests/data/make_dino.py`` writes dino.npz beside it.

A model 32 wide with two padded images of three and one object: weights and images by numpy from
names (tests/support/dino.py), so that only names and shapes are stored; the noise of the denoising
queries; logits and boxes of every layer and query in training, the groups before the others; every
loss; the norm of the gradient of every parameter. Recorded with mmdet 3.5, torch 2.13.
"""

import sys
from pathlib import Path

sys.path[:0] = map(str, [Path(__file__).parents[1], Path(__file__).parents[2]])

import numpy as np  # noqa: E402
import torch  # noqa: E402
from mmdet.utils import register_all_modules  # noqa: E402
from support.dino import (  # noqa: E402
    DN,
    PUBLISHED,
    RECORDED,
    draw,
    gradients,
    ours,
    recorded_batch,
    share_noise,
    theirs,
)

from fastdetr_mmdet.structures import Targets  # noqa: E402


def main() -> None:
    """Record."""
    if PUBLISHED:
        sys.exit("This needs mmdet 3.4 or later: before it there is no DINO 32 wide.")
    register_all_modules(init_default_scope=True)
    model = theirs(32).train()
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    model.load_state_dict({name: draw(name, shape) for name, shape in shapes.items()})
    inputs, samples = recorded_batch()
    targets = Targets.from_data_samples(samples, "cpu")
    torch.manual_seed(0)
    labels, boxes = ours(32, 32).transformer.queries.noise(targets, 2 * (DN // 3))
    share_noise(model.dn_query_generator, labels, boxes)
    seen = {}
    head = model.bbox_head
    forward = head.forward

    def look(*args, **kwargs):
        seen["logits"], seen["boxes"] = forward(*args, **kwargs)
        return seen["logits"], seen["boxes"]

    head.forward = look
    losses = model.loss(inputs, samples)
    norms = [float(gradient.float().norm()) for gradient in gradients(model, losses).values()]
    np.savez_compressed(
        RECORDED,
        names=np.array([*shapes]),
        shapes=np.array([(*shape, 0, 0, 0, 0)[:4] for shape in shapes.values()], dtype=np.int16),
        noise_labels=labels.numpy(),
        noise_boxes=boxes.numpy(),
        losses=np.array([*losses]),
        loss_values=np.array([value.item() for value in losses.values()], dtype=np.float32),
        norms=np.array(norms, dtype=np.float32),
        **{name: value.detach().numpy() for name, value in seen.items()},
    )


if __name__ == "__main__":
    main()
