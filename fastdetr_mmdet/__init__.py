"""Fast-converging DETRs as parts for MMDetection 3.x; importing this registers all of them."""

from .environment import allow_mmengine_checkpoints, check_environment, guard_checkpoints
from .version import __version__

check_environment()
allow_mmengine_checkpoints()
guard_checkpoints()

# ruff: noqa: E402 (the check above must come first, so that a broken set-up is named, not hit)
from . import derived_keys, distributed
from .aligners import SAMSemanticAligner
from .backbones import DilatedResNet
from .cross_attention import (
    ConditionalAttention,
    DeformableAttention,
    MultiheadCrossAttention,
    SAMAttention,
    SMCAAttention,
)
from .decoders import ConditionalDecoder, DetrDecoder
from .detectors import FastDETR
from .encoders import DeformableDetrEncoder, DetrEncoder, SMCAConvEncoder, SMCAEncoder
from .heads import FastDETRHead
from .hooks import (
    AtomicCheckpointHook,
    AttentionVisualizationHook,
    DatasetCheckHook,
    DatasetClassesCheckHook,
    ExactResumeHook,
    NumbersCheckHook,
    TrainingProgressHook,
)
from .initializers import TorchDefaultInit
from .matchers import HungarianMatcher
from .param_groups import GroupedOptimWrapperConstructor
from .positions import SAMSinePositionalEncoding
from .queries import LearnedBoxQueries, LearnedQueries, TwoStageQueries
from .self_attention import ConditionalSelfAttention, MultiheadSelfAttention
from .spatial_priors import GaussianPrior, SalientGaussianPrior
from .structures import DecoderOutput, Memory, Proposals, Queries, SalientPoints
from .transformers import DeformableDetrTransformer, DetrTransformer

derived_keys.install()
distributed.allow_cpu_processes()

__all__ = [
    "AtomicCheckpointHook",
    "AttentionVisualizationHook",
    "ConditionalAttention",
    "ConditionalDecoder",
    "ConditionalSelfAttention",
    "DatasetCheckHook",
    "DatasetClassesCheckHook",
    "DecoderOutput",
    "DeformableAttention",
    "DeformableDetrEncoder",
    "DeformableDetrTransformer",
    "DetrDecoder",
    "DetrEncoder",
    "DetrTransformer",
    "DilatedResNet",
    "ExactResumeHook",
    "FastDETR",
    "FastDETRHead",
    "GaussianPrior",
    "GroupedOptimWrapperConstructor",
    "HungarianMatcher",
    "LearnedBoxQueries",
    "LearnedQueries",
    "Memory",
    "MultiheadCrossAttention",
    "MultiheadSelfAttention",
    "NumbersCheckHook",
    "Proposals",
    "Queries",
    "SAMAttention",
    "SAMSemanticAligner",
    "SAMSinePositionalEncoding",
    "SMCAAttention",
    "SMCAConvEncoder",
    "SMCAEncoder",
    "SalientGaussianPrior",
    "SalientPoints",
    "TorchDefaultInit",
    "TrainingProgressHook",
    "TwoStageQueries",
    "__version__",
]
