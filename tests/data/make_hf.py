"""Record what transformers' models compute: ``python tests/data/make_hf.py`` writes hf.npz.

Models 32 wide with transformers' own ResNet and two padded images (tests/support/hf.py), weights by
numpy from their names, so that only the names and shapes in the file that save_pretrained writes
are stored, and the logits and boxes of every layer; of DETR the output of the encoder. Needs
transformers, neither timm nor torchvision. Recorded with transformers 5.24, torch 2.13.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path[:0] = map(str, [Path(__file__).parents[1], Path(__file__).parents[2]])

import numpy as np  # noqa: E402
from support.hf import CASES, RECORDED, record  # noqa: E402


def main() -> None:
    """Record."""
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
