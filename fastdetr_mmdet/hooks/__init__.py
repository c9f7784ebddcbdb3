"""Runner hooks."""

from .atomic_checkpoint import AtomicCheckpointHook
from .dataset_check import DatasetCheckHook
from .dataset_classes_check import DatasetClassesCheckHook
from .exact_resume import ExactResumeHook
from .numbers_check import NumbersCheckHook

__all__ = [
    "AtomicCheckpointHook",
    "DatasetCheckHook",
    "DatasetClassesCheckHook",
    "ExactResumeHook",
    "NumbersCheckHook",
]
