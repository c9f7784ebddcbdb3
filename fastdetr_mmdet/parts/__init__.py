"""List registered parts and what fits together: ``python -m fastdetr_mmdet parts``."""

from ..utils.cli import only_help

if not only_help():
    from .registered import SLOTS, Registered, Role, registered_roles

__all__ = ["SLOTS", "Registered", "Role", "registered_roles"]
