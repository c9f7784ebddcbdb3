"""Fast-converging DETRs as parts for MMDetection 3.x; importing this registers all of them."""

from .utils.cli import only_help
from .utils.environment import check_environment
from .version import __version__

if not only_help():  # --help needs no slow imports
    # First, so that a broken installation gives a clear error.
    check_environment()

    from .checkpoints.guard import guard_checkpoints
    from .checkpoints.safe_loading import allow_mmengine_checkpoints
    from .engine import distributed  # noqa: F401 (registers FullFSDPStrategy)
    from .engine.hooks import (
        AtomicCheckpointHook,
        AttentionVisualizationHook,
        DatasetCheckHook,
        DatasetClassesCheckHook,
        ExactResumeHook,
        NumbersCheckHook,
        ResumeCheckHook,
        TrainingProgressHook,
    )
    from .engine.optimizers import GroupedOptimWrapperConstructor
    from .models import (
        ConditionalAttention,
        ConditionalDecoder,
        ConditionalSelfAttention,
        DeformableAttention,
        DeformableDetrEncoder,
        DeformableDetrTransformer,
        DetrDecoder,
        DetrEncoder,
        DetrTransformer,
        DilatedResNet,
        FastDETR,
        FastDETRHead,
        GaussianPrior,
        HungarianMatcher,
        LearnedBoxQueries,
        LearnedQueries,
        MultiheadCrossAttention,
        MultiheadSelfAttention,
        SalientGaussianPrior,
        SAMAttention,
        SAMSemanticAligner,
        SAMSinePositionalEncoding,
        SMCAAttention,
        SMCAConvEncoder,
        SMCAEncoder,
        TorchDefaultInit,
        TwoStageQueries,
    )
    from .structures import DecoderOutput, Memory, Proposals, Queries, SalientPoints

    allow_mmengine_checkpoints()
    guard_checkpoints()

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
    "ResumeCheckHook",
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
