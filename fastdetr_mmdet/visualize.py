"""Where a trained detector looks: ``python -m fastdetr_mmdet.visualize``.

Writes a contact sheet per image and a page per detection; docs/visualization.md shows them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import DictAction

from .checkpoints import CheckpointError
from .checkpoints.loading import ConfigError, load_detector
from .utils.files import would_overwrite

IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


class _UsageError(ValueError):
    """The arguments do not fit the disk or the model; the message is a sentence."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw what was asked for, and print each file as it is written.

    Args:
        arguments: Of the command line; default: this process's.

    Returns:
        The exit status: 0; 1 if some of the images cannot be read, but the others were drawn; 2 if
        nothing could be drawn. The reason is on stderr.
    """
    args = _parser().parse_args(arguments)
    try:
        unreadable = _run(args)
    except (_UsageError, ConfigError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: The pictures could not be written: {error}", file=sys.stderr)
        return 2
    for sentence in unreadable:
        print(f"error: {sentence}", file=sys.stderr)
    return 1 if unreadable else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fastdetr_mmdet.visualize",
        description="Show where the surest queries of a trained FastDETR looked: one page per "
        "detection and one contact sheet per image.",
    )
    parser.add_argument("config", metavar="CONFIG", help="the model's config file")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="its weights")
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", type=Path, help="image files, or folders of them"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where to write to")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--top", type=int, default=5, metavar="K", help="how many detections (default: 5)"
    )
    which.add_argument(
        "--query",
        type=int,
        nargs="+",
        action="extend",
        metavar="N",
        help="these queries instead, counted from 0",
    )
    parser.add_argument(
        "--layer",
        type=int,
        metavar="L",
        help="decoder layer whose attention is shown, counted from 1 (default: the last)",
    )
    parser.add_argument("--device", help="default: cuda where there is a GPU, else cpu")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        metavar="KEY=VALUE",
        help="changes of the config, as for `mim test`",
    )
    return parser


def _run(args: argparse.Namespace) -> list[str]:
    """Draw; return a sentence on each image that cannot be read, if there are others."""
    images = find_images(args.images)
    if args.top < 1:
        raise _UsageError(f"--top {args.top} must be at least 1.")
    names = _names(images)
    _check_outputs(args, images, names)
    args.out.mkdir(parents=True, exist_ok=True)
    model = _load(args)
    layers = len(model.transformer.decoder.layers)
    if args.layer is not None and not 1 <= args.layer <= layers:
        raise _UsageError(f"--layer {args.layer}: the model's decoder has layers 1 to {layers}.")
    from mmcv.image import imwrite

    from .visualization import draw_contact_sheet, draw_detection, inspect_image
    from .visualization.inspection import UnreadableImageError

    unreadable: list[str] = []
    for path, name in zip(images, names, strict=True):
        try:
            inspected = inspect_image(model, path, args.top, args.query)
        except UnreadableImageError as error:
            unreadable.append(str(error))
            continue
        except ValueError as error:  # no such query
            raise _UsageError(f"{path}: {error}") from error
        pictures = {f"{name}.png": draw_contact_sheet(inspected, args.layer)}
        for index, query in enumerate(inspected.queries):
            label = re.sub(r"\W+", "-", inspected.name(query.label)).strip("-")
            pictures[f"{name}_{index + 1}_{label}.png"] = draw_detection(
                inspected, index, args.layer
            )
        for file, picture in pictures.items():
            imwrite(picture[..., ::-1], str(args.out / file))
            print(args.out / file, flush=True)
    if len(unreadable) == len(images):
        raise _UsageError(" ".join(unreadable))
    return unreadable


def find_images(paths: Iterable[Path]) -> list[Path]:
    """The files among the paths, and the images in the folders among them, in their order.

    Raises:
        ValueError: if a path does not exist, or a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES)
            if not inside:
                raise _UsageError(
                    f"The folder {path} holds no image ({', '.join(sorted(IMAGES))}); name one "
                    "that does, or image files."
                )
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise _UsageError(f"There is no image or folder {path}; give one that exists.")
    return found


def _names(images: Sequence[Path]) -> list[str]:
    """A name for the pictures of each image: its own, with a number where two are alike."""
    names: list[str] = []
    for path in images:
        name, number = path.stem, 2
        while name in names:
            name, number = f"{path.stem}({number})", number + 1
        names.append(name)
    return names


def _check_outputs(args: argparse.Namespace, images: Sequence[Path], names: Sequence[str]) -> None:
    """Refuse to replace what is read; pages have names that only the model knows, so all count."""
    sheets, pages = (args.out / f"{name}.png" for name in names), args.out.glob("*_[0-9]*_*.png")
    found = would_overwrite([*sheets, *pages], [*images, args.config, args.checkpoint])
    if found:
        raise _UsageError(
            f"{found} is an image, config or checkpoint to read, which a picture would replace; "
            "give another folder as --out."
        )


def _load(args: argparse.Namespace) -> Any:
    from .visualization.recording import find_decoder

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = load_detector(args.config, args.checkpoint, device, args.cfg_options)
    try:
        find_decoder(model)
    except TypeError as error:
        raise _UsageError(f"{args.config}: {error}") from error
    return model


if __name__ == "__main__":
    sys.exit(main())
