"""Variants as the planner sees them: what they need, how good they are, whether they may serve. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Admission(StrEnum):
    """Whether a variant may serve."""

    ADMITTED = "admitted"
    REJECTED = "rejected"
    UNCHECKED = "unchecked"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file in the content-addressed store."""

    name: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Variant:
    """A compiled variant.

    Attributes:
        admission_reason: why it is in that state, with figures.
        top1_agreement: share of the reference's top-1 tokens kept; None when unchecked.
        perplexity_increase: relative to the f32 reference; None when unchecked.
        context_tokens: longest prompt and output together; 0 when not known.
        slots: sequences its cache holds; 0 when not known.
        memory_bytes: weights, cache and code of one replica.
    """

    variant_id: str
    name: str
    model_id: str
    target: str
    admission: Admission
    manifest: Artifact
    admission_reason: str = ""
    compiled_target: str = ""
    top1_agreement: float | None = None
    perplexity_increase: float | None = None
    context_tokens: int = 0
    slots: int = 0
    memory_bytes: int = 0
