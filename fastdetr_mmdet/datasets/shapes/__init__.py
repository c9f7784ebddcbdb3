"""The shapes data set: a small COCO-style detection data set that is drawn, not downloaded.

Six classes that differ in shape alone, on cluttered backgrounds, with occlusion, crowds and empty
images. Each image depends only on the seed, its split and its number. Files are the same to the
byte for the same numpy, OpenCV and kind of processor. (On another kind OpenCV may round a few
pixels by a grey level; the annotations stay the same.)

Usage:
    python -m fastdetr_mmdet.datasets.shapes data/shapes --train 1024 --val 128 --seed 0
"""

from ...utils.cli import only_help

if not only_help():
    from .outlines import CLASSES
    from .write import summary, write_shapes

__all__ = ["CLASSES", "summary", "write_shapes"]
