"""Runner hooks."""

from .atomic_checkpoint import AtomicCheckpointHook
from .attention_visualization import AttentionVisualizationHook
from .dataset_check import DatasetCheckHook
from .dataset_classes_check import DatasetClassesCheckHook
from .exact_resume import ExactResumeHook
from .horizon_ema import HorizonEMAHook
from .numbers_check import NumbersCheckHook
from .resume_check import ResumeCheckHook
from .training_progress import TrainingProgressHook

__all__ = [
    "AtomicCheckpointHook",
    "AttentionVisualizationHook",
    "DatasetCheckHook",
    "DatasetClassesCheckHook",
    "ExactResumeHook",
    "HorizonEMAHook",
    "NumbersCheckHook",
    "ResumeCheckHook",
    "TrainingProgressHook",
]
