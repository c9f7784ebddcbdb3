"""The shapes dataset: a small COCO-style detection dataset that is drawn, not downloaded.

Six classes that differ only in shape, on cluttered backgrounds, with occlusion, crowds and empty
images. Each image depends only on the seed, its split and its number. With the same numpy, OpenCV
and processor type, files are byte-identical. (On another type OpenCV may round a few pixels by one
grey level; annotations stay the same.)

Usage:
    python -m fastdetr_mmdet shapes data/shapes --train 1024 --val 128 --seed 0
"""

from ...utils.cli import only_help

if not only_help():
    from .outlines import CLASSES
    from .write import summary, write_shapes

__all__ = ["CLASSES", "summary", "write_shapes"]
