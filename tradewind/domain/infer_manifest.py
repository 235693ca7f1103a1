"""The manifest of a variant that maps tensors to tensors (ABI "tradewind.infer/1"). Pure.

Same bytes and signature as the manifest of a generator, see `tradewind.domain.manifest`. One module holds every
function, weights are shared:

    infer_b{B}(inputs…) -> outputs…          for models of fixed sample size
    infer_b{B}_l{L}(inputs…) -> outputs…     samples of L along LENGTH dimensions

Tensors come in the order of `inputs` and leave in that of `outputs`, BATCH being B and LENGTH being L. Rows and lengths
that a call does not need are padding, and what comes out for them is thrown away: rows never look at each other;
shorter samples are only padded when the model has a mask input (`mask`), which is 0 over the padding. A function of
batch 0 takes exactly the sizes its tensors have, one request a call.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from tradewind.domain.manifest import ABI, FileRef, RecipeFacts, VariantManifest, digest_of
from tradewind.domain.tensors import TensorSpec, tensor_spec

INFER_ABI: Final = "tradewind.infer/1"


@dataclass(frozen=True, slots=True)
class InferFunction:
    """One function of the module.

    Attributes:
        name: its name in the module.
        batch: samples a call takes; 0 when the model's sizes are all fixed.
        length: of each sample along LENGTH dimensions; 0 when the model has none.
    """

    name: str
    batch: int
    length: int


@dataclass(frozen=True, slots=True)
class InferManifest:
    """A compiled variant of a model that maps tensors to tensors.

    Attributes:
        driver: IREE HAL driver that runs it.
        mask: name of the input that is 0 over padding; "" when samples must have a function's very length.
        canary: samples and the admitted answers to them; None for a variant that was never checked.
        canary_error: largest relative error (L2) of an answer to the canary.
    """

    model_id: str
    architecture: str
    target: str
    compiled_target: str
    driver: str
    recipe: RecipeFacts
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    mask: str
    module: FileRef
    weights: tuple[FileRef, ...]
    weights_scope: str
    functions: tuple[InferFunction, ...]
    canary: FileRef | None
    canary_error: float
    memory_bytes: int
    abi: str = INFER_ABI
    toolchain: dict[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        fields = asdict(self) | {"recipe": self.recipe.as_dict()}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @property
    def variant_id(self) -> str:
        """Digest of the canonical bytes."""
        return digest_of(self.to_bytes())

    @property
    def files(self) -> tuple[FileRef, ...]:
        """Every file but the manifest."""
        return (self.module, *self.weights, *([self.canary] if self.canary else []))

    @classmethod
    def from_bytes(cls, data: bytes) -> InferManifest:
        """Reads canonical JSON.

        Raises:
            ValueError: not JSON, another ABI, or fields missing or unknown.
        """
        try:
            raw: dict[str, Any] = json.loads(data)
            if raw.get("abi") != INFER_ABI:
                raise ValueError(f"manifest of ABI {raw.get('abi')!r}, this engine speaks {INFER_ABI!r}")
            recipe: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw["recipe"].items()}
            raw["recipe"] = RecipeFacts(**recipe)
            raw["inputs"] = tuple(tensor_spec(spec) for spec in raw["inputs"])
            raw["outputs"] = tuple(tensor_spec(spec) for spec in raw["outputs"])
            raw["module"] = FileRef(**raw["module"])
            raw["weights"] = tuple(FileRef(**w) for w in raw["weights"])
            raw["functions"] = tuple(InferFunction(**f) for f in raw["functions"])
            raw["canary"] = FileRef(**raw["canary"]) if raw["canary"] else None
            return cls(**raw)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a variant manifest: {error}") from error


AnyManifest = VariantManifest | InferManifest


def read_manifest(data: bytes) -> AnyManifest:
    """A manifest of whichever ABI.

    Raises:
        ValueError: not JSON, an ABI that is not known here, or fields missing or unknown.
    """
    raw = json.loads(data)
    abi = raw.get("abi") if isinstance(raw, dict) else None
    if abi == INFER_ABI:
        return InferManifest.from_bytes(data)
    if abi == ABI:
        return VariantManifest.from_bytes(data)
    raise ValueError(f"manifest of ABI {abi!r}, this engine speaks {ABI!r} and {INFER_ABI!r}")
