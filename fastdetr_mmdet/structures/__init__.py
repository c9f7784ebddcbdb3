"""Data that flows between parts: memory, queries, proposals, decoder output and targets.

A part gets everything through these and never reads another part's attributes.
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
