"""Checkpoints of the official codes, made loadable."""

from .convert import METHODS, convert_state_dict

__all__ = ["METHODS", "convert_state_dict"]
