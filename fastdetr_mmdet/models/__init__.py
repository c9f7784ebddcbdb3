"""Models: one folder per role; importing this registers every part."""

from .aligners import *
from .backbones import *
from .cross_attention import *
from .decoders import *
from .detectors import *
from .encoders import *
from .heads import *
from .layers import SAMSinePositionalEncoding, TorchDefaultInit
from .losses import *
from .match_costs import *
from .matchers import *
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
from .proposal_losses import *
from .queries import *
from .self_attention import *
from .spatial_priors import *
from .transformers import *
