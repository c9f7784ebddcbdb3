"""Runner hooks."""

from .dataset_classes_check import DatasetClassesCheckHook

__all__ = ["DatasetClassesCheckHook"]
