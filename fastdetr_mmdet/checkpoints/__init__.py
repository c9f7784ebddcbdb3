"""Convert checkpoints of official codes and of mmdet's own DETRs."""

from ..utils.cli import only_help

if not only_help():
    # not from .convert, which `python -m` would then import twice
    from .conversion import Report, convert_checkpoint
    from .safe_loading import CheckpointError
    from .state_dicts import METHODS, convert_state_dict

__all__ = ["METHODS", "CheckpointError", "Report", "convert_checkpoint", "convert_state_dict"]
