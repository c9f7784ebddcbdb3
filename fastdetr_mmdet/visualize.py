"""Draw what a trained detector attends to: ``python -m fastdetr_mmdet visualize``.

Writes a contact sheet per image and a page per detection; docs/visualization.md shows them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .utils.cli import (
    Parser,
    UsageError,
    UserError,
    add_model_arguments,
    command,
    positive_int,
    refuse_to_overwrite,
)

IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, and print the name of each file; unreadable images do not stop the others."""
    args = _parser().parse_args(arguments)
    images = find_images(args.images)
    names = _names(images)
    _check_outputs(args, images, names)
    args.out.mkdir(parents=True, exist_ok=True)
    model = _load(args)
    layers = len(model.transformer.decoder.layers)
    if args.layer is not None and args.layer > layers:
        raise UsageError(f"--layer {args.layer}: the model's decoder has layers 1 to {layers}.")
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
        pictures = {f"{name}.png": draw_contact_sheet(inspected, args.layer)}
        for index, query in enumerate(inspected.queries):
            label = re.sub(r"\W+", "-", inspected.name(query.label)).strip("-")
            page = draw_detection(inspected, index, args.layer)
            pictures[f"{name}_{index + 1}_{label}.png"] = page
        for file, picture in pictures.items():
            imwrite(picture[..., ::-1], str(args.out / file))
            print(args.out / file, flush=True)
    if unreadable:
        raise UserError("\n".join(unreadable))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m fastdetr_mmdet visualize",
        description="Draw the attention of the top-scoring queries of a FastDETR: one page per "
        "detection and one contact sheet per image.",
    )
    add = parser.add_argument
    add_model_arguments(parser)
    add("images", metavar="IMAGE", nargs="+", type=Path, help="image files, or folders of them")
    add("--out", required=True, type=Path, metavar="DIR", help="folder to write to")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--top", type=positive_int, default=5, metavar="K",
                       help="how many detections (default: 5)")  # fmt: skip
    which.add_argument("--query", type=int, nargs="+", action="extend", metavar="N",
                       help="draw these queries instead, counted from 0")  # fmt: skip
    add("--layer", type=positive_int, metavar="L",
        help="decoder layer to show, counted from 1 (default: the last)")  # fmt: skip
    add("--device", help="default: cuda if available")
    return parser


def find_images(paths: Iterable[Path]) -> list[Path]:
    """List the given files, and the images in given folders, in order.

    Raises:
        UsageError: if a path does not exist, or a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES)
            if not inside:
                raise UsageError(
                    f"The folder {path} holds no image ({', '.join(sorted(IMAGES))}); name another "
                    "folder, or image files."
                )
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UsageError(f"There is no image or folder {path}; give one that exists.")
    return found


def _names(images: Sequence[Path]) -> list[str]:
    """Unique names of the pictures: the image's name, with a number if needed."""
    names: list[str] = []
    for path in images:
        name, number = path.stem, 2
        while name in names:
            name, number = f"{path.stem}({number})", number + 1
        names.append(name)
    return names


def _check_outputs(args: argparse.Namespace, images: Sequence[Path], names: Sequence[str]) -> None:
    """Refuse to overwrite inputs; names of pages are unknown before, so all candidates count."""
    sheets, pages = (args.out / f"{name}.png" for name in names), args.out.glob("*_[0-9]*_*.png")
    refuse_to_overwrite([*sheets, *pages], [*images, args.config, args.checkpoint])
    if args.out.is_file():
        raise UsageError(f"--out {args.out} is a file; name a folder.")


def _load(args: argparse.Namespace) -> Any:
    from .checkpoints.loading import load_detector
    from .visualization.recording import find_decoder

    model = load_detector(args.config, args.checkpoint, args.device, args.cfg_options)
    try:
        find_decoder(model)
    except TypeError as error:
        raise UsageError(f"{args.config}: {error}") from error
    return model


if __name__ == "__main__":
    sys.exit(main())
