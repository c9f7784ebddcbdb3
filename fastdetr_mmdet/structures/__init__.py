"""What flows between parts: memory, queries, proposals, decoder output and targets.

A part gets everything it needs through these and never reaches into another part's attributes.
"""

from .memory import Memory
from .queries import ConditionalQuery, DecoderOutput, Proposals, Queries, QueryGroup, SalientPoints
from .targets import Targets

__all__ = [
    "ConditionalQuery",
    "DecoderOutput",
    "Memory",
    "Proposals",
    "Queries",
    "QueryGroup",
    "SalientPoints",
    "Targets",
]
