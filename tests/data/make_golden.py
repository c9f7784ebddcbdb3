"""Reduce the golden vectors of the official codes to the arrays that tests read.

    python tests/data/make_golden.py GOLDEN CASE [CASE ...]

GOLDEN is the folder with ``cases/`` and ``init_stats/``. Writes
tests/data/golden/<case>/ (in three files, each below 250 kB) and, for each
case that has them, tests/data/init_stats/<case>.json.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
MANIFEST_KEYS = (
    "case",
    "case_seed",
    "repo",
    "official_flags",
    "torch_version",
    "mean",
    "std",
    "image_sizes_hw",
    "batch_hw",
    "padded_to_hw",
    "num_queries",
    "loss_weight_dict",
    "weights_sha256",
    "alias_groups",
    "state_dict",
)
INPUTS = re.compile(r"image_\d$|target_\d_(boxes_abs|labels)$")
MAPS = re.compile(r"(src|pos|memory|mask)_l\d$")
OUTPUTS = re.compile(
    r"hs$|pred_(logits|boxes)$|results_\d_|match_|enc_|points$"
    r"|reference_points$|reference_boxes$|init_reference$|inter_references$"
    r"|loss(_empty|_allempty)?/loss_|loss(_empty|_allempty)?_total$|solo/|padded/(pred|mask)_"
)
CHANNEL_STRIDE = 9  # of memory, where a case holds all channels


def reduce_case(source: Path, target: Path) -> None:
    """Copy the arrays that tests read."""
    target.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((source / "manifest.json").read_text())
    embed_dims = 256
    with np.load(source / "io.npz") as arrays:
        for name, wanted in (("inputs", INPUTS), ("maps", MAPS), ("outputs", OUTPUTS)):
            kept = {key: arrays[key] for key in arrays if wanted.match(key)}
            for key, array in kept.items():
                if key.startswith("memory_") and array.shape[-1] == embed_dims:
                    kept[key] = array[..., ::CHANNEL_STRIDE]
            np.savez_compressed(target / f"{name}.npz", **kept)
    write_json(target / "manifest.json", {key: manifest[key] for key in MANIFEST_KEYS})
    for name in ("grad_norms.json", "grad_proj.json"):
        write_json(target / name, json.loads((source / name).read_text()))


def reduce_init_stats(source: Path, target: Path) -> None:
    """Keep each tensor's shape and distribution.

    In the source, biases with torch's default are 'other'; their bound follows from their weight,
    and the recorded extremes and spread must agree with it.
    """
    stats = json.loads(source.read_text())
    reduced: dict[str, list] = {}
    for name, (shape, _, std, low, high, kind) in stats.items():
        if kind.startswith("constant"):
            reduced[name] = [shape, "constant", low]
            continue
        if kind.startswith("normal"):
            reduced[name] = [shape, "normal", 1.0]
            continue
        if name.endswith("sampling_offsets.bias"):  # points on rays; distance of the last
            assert (low, high) == (-4.0, 4.0)
            reduced[name] = [shape, "rays", high]
            continue
        if "bbox_embed" in name and (low, high) == (-2.0, 0.0):
            reduced[name] = [shape, "box size", low]
            continue
        if kind.startswith("xavier"):
            field = math.prod(shape[2:])
            bound = math.sqrt(6 / (shape[0] * field + shape[1] * field))
        else:
            weight = stats[name.removesuffix("bias") + "weight"][0] if "bias" in name else shape
            bound = 1 / math.sqrt(math.prod(weight[1:]))
        assert max(-low, high) <= bound * 1.0001, (name, low, high, bound)
        if math.prod(shape) >= 64:
            assert abs(std * math.sqrt(3) / bound - 1) < 0.15, (name, std, bound)
        reduced[name] = [shape, "uniform", bound]
    target.parent.mkdir(exist_ok=True)
    write_json(target, reduced)


def write_json(path: Path, value: dict) -> None:
    """Write one entry per line, for readable diffs."""
    lines = [f"{json.dumps(key)}: {json.dumps(entry)}" for key, entry in value.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("golden", type=Path)
    parser.add_argument("cases", nargs="+")
    args = parser.parse_args()

    for case in args.cases:
        reduce_case(args.golden / "cases" / case, HERE / "golden" / case)
        stats = args.golden / "init_stats" / f"{case}.json"
        if stats.exists():
            reduce_init_stats(stats, HERE / "init_stats" / stats.name)


if __name__ == "__main__":
    main()
