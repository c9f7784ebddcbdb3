"""Operations that two or more parts use."""

from .deformable import level_shapes, sample_and_sum
from .roi import align_regions, regions_in_onnx

__all__ = ["align_regions", "level_shapes", "regions_in_onnx", "sample_and_sum"]
