"""Fast-converging DETRs as parts for MMDetection 3.x; importing this registers all of them."""

from .environment import allow_mmengine_checkpoints, check_environment
from .version import __version__

check_environment()
allow_mmengine_checkpoints()

# ruff: noqa: E402 (the check above must come first, so that a broken set-up is named, not hit)
from . import derived_keys
from .backbones import DilatedResNet
from .cross_attention import ConditionalAttention, MultiheadCrossAttention
from .decoders import ConditionalDecoder, DetrDecoder
from .detectors import FastDETR
from .encoders import DetrEncoder
from .heads import FastDETRHead
from .hooks import DatasetClassesCheckHook
from .initializers import TorchDefaultInit
from .matchers import HungarianMatcher
from .queries import LearnedQueries, TwoStageQueries
from .self_attention import ConditionalSelfAttention, MultiheadSelfAttention
from .structures import DecoderOutput, Memory, Proposals, Queries
from .transformers import DetrTransformer

derived_keys.install()

__all__ = [
    "ConditionalAttention",
    "ConditionalDecoder",
    "ConditionalSelfAttention",
    "DatasetClassesCheckHook",
    "DecoderOutput",
    "DetrDecoder",
    "DetrEncoder",
    "DetrTransformer",
    "DilatedResNet",
    "FastDETR",
    "FastDETRHead",
    "HungarianMatcher",
    "LearnedQueries",
    "Memory",
    "MultiheadCrossAttention",
    "MultiheadSelfAttention",
    "Proposals",
    "Queries",
    "TorchDefaultInit",
    "TwoStageQueries",
    "__version__",
]
