"""Record outputs of transformers' models: ``python tests/data/make_hf.py`` writes hf.npz.

Models are 32 wide, with transformers' own ResNet and two padded images (tests/support/hf.py). Numpy
draws weights from their names, so only names and shapes in save_pretrained's file are stored, and
logits and boxes of every layer (for DETR the encoder's output). Needs transformers, but not timm or
torchvision. Recorded with transformers 5.24, torch 2.13.

With --errors, print the largest difference between the recordings and this package's outputs with
converted weights, without transformers.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path[:0] = map(str, [Path(__file__).parents[1], Path(__file__).parents[2]])

import numpy as np  # noqa: E402
from mmdet.utils import register_all_modules  # noqa: E402
from support.hf import CASES, RECORDED, compute, read, record  # noqa: E402

from fastdetr_mmdet.checkpoints import convert_state_dict  # noqa: E402


def main() -> None:
    """Record, or compare."""
    if "--errors" in sys.argv:
        register_all_modules(init_default_scope=True)
        for name in CASES:
            weights, expected = read(name)
            found = compute(name, convert_state_dict(weights, "hf"))
            errors = {k: (found[k] - v).abs().max().item() for k, v in expected.items()}
            print(f"{name:13}", *(f"{key} {error:.1e}" for key, error in errors.items()))
        return
    arrays = {}
    for name in CASES:
        with TemporaryDirectory() as folder:
            seen, shapes = record(name, Path(folder))
        arrays[f"{name}.names"] = np.array("\n".join(shapes))
        arrays[f"{name}.shapes"] = np.array(
            [(*shape, 0, 0, 0, 0)[:4] for shape in shapes.values()], dtype=np.int16
        )
        arrays |= {f"{name}.{key}": value.numpy() for key, value in seen.items()}
    np.savez_compressed(RECORDED, **arrays)


if __name__ == "__main__":
    main()
