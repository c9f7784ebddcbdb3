"""Models: one folder per role; importing this registers every part."""

from .aligners import SAMSemanticAligner
from .backbones import DilatedResNet, EfficientNetLite, FoldedResNet
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
from .layers import SAMSinePositionalEncoding, TorchDefaultInit
from .losses import IABCELoss, MALLoss, PositionSupervisedLoss, QualityLoss
from .match_costs import PositionModulatedFocalCost
from .matchers import HungarianMatcher, ScoreMatcher
from .parts import (
    Aligner,
    CrossAttention,
    Decoder,
    Encoder,
    Part,
    QueryInitialiser,
    SelfAttention,
    SpatialPrior,
)
from .proposal_losses import DenseProposalLoss
from .queries import (
    DenoisingQueries,
    GroupQueries,
    HybridQueries,
    LearnedBoxQueries,
    LearnedQueries,
    TwoStageQueries,
)
from .self_attention import ConditionalSelfAttention, MultiheadSelfAttention
from .spatial_priors import GaussianPrior, SalientGaussianPrior
from .transformers import DeformableDetrTransformer, DetrTransformer

__all__ = [
    "Aligner",
    "ConditionalAttention",
    "ConditionalDecoder",
    "ConditionalSelfAttention",
    "CrossAttention",
    "Decoder",
    "DeformableAttention",
    "DeformableDetrEncoder",
    "DeformableDetrTransformer",
    "DenoisingQueries",
    "DenseProposalLoss",
    "DetrDecoder",
    "DetrEncoder",
    "DetrTransformer",
    "DilatedResNet",
    "EfficientNetLite",
    "Encoder",
    "FastDETR",
    "FastDETRHead",
    "FoldedResNet",
    "GaussianPrior",
    "GroupQueries",
    "HungarianMatcher",
    "HybridQueries",
    "IABCELoss",
    "LearnedBoxQueries",
    "LearnedQueries",
    "MALLoss",
    "MultiheadCrossAttention",
    "MultiheadSelfAttention",
    "Part",
    "PositionModulatedFocalCost",
    "PositionSupervisedLoss",
    "QualityLoss",
    "QueryInitialiser",
    "SAMAttention",
    "SAMSemanticAligner",
    "SAMSinePositionalEncoding",
    "SMCAAttention",
    "SMCAConvEncoder",
    "SMCAEncoder",
    "SalientGaussianPrior",
    "ScoreMatcher",
    "SelfAttention",
    "SpatialPrior",
    "TorchDefaultInit",
    "TwoStageQueries",
]
