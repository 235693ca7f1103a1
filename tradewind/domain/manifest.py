"""The manifest of a variant: everything a node needs to fetch, check, load and drive it. Pure.

Bytes of a manifest are canonical JSON (sorted keys, no spaces, UTF-8); the variant id is "sha256:" and the digest of
these bytes. On the wire and on disk the manifest travels in a signed envelope, see `tradewind.domain.envelope`.

The contract between compiled code and engine (ABI "tradewind.generate/1"). One module holds every function, so that
they share the KV cache, which lives in the module as mutable globals and holds `slots` sequences of
`cache_tokens` rows:

    prefill_t{T}_c{C}(tokens i64[1,T], slot i64[1], start i64[1], length i64[1]) -> logits f32[1,V]
        Writes K and V of tokens[0,:length] into rows start… of the slot, attends to rows below C; the logits are those
        of token length-1. Tokens at and past `length` are padding: what they write lies at or past start+length and is
        written again before it is ever attended to. Needs start + length <= C and start + T <= cache_tokens.
    decode_b{B}_c{C}(tokens i64[B], positions i64[B]) -> logits f32[B,V]
        One token for each of slots 0…B-1; row i writes row positions[i] of slot i and attends to rows up to it. A slot
        that takes no part passes the position its next token will be written at (0 when free): the garbage written
        there is written again before it is read. Needs positions < C.

In a variant with `picks` K > 0 each function gives three tensors: these logits, and of each row the K largest logits,
f32[B,K], and their token ids, i32[B,K], largest first and equals by id. Logits are the last resort there: an engine
fetches them from the device only for requests that the K largest do not answer.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

ABI: Final = "tradewind.generate/1"
# Largest logits that functions with picks give: more than top-k sampling is asked for, few enough to send each step.
PICKS: Final = 64


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file in the content-addressed store: name within its owner, "sha256:…" digest, length in bytes."""

    name: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the module.

    Attributes:
        name: its name in the module.
        phase: "prefill" or "decode".
        tokens: T, prompt tokens a call takes; 1 for decode.
        batch: B, sequences a call takes; 1 for prefill.
        context: C, cache rows it attends to.
    """

    name: str
    phase: Literal["prefill", "decode"]
    tokens: int
    batch: int
    context: int


@dataclass(frozen=True, slots=True)
class RecipeFacts:
    """What the variant was made with; the same fields as `tradewind.v1.Recipe`.

    Attributes:
        tuning: tiles of matrix products by their rows, such as "64:12x8x8"; what has none the compiler tiles itself.
    """

    name: str
    precision: str
    passes: tuple[str, ...]
    compiler_flags: tuple[str, ...]
    prefill_chunks: tuple[int, ...]
    decode_batches: tuple[int, ...]
    context_buckets: tuple[int, ...]
    slots: int
    tuning: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Its fields; without tuning those that engines know which know no tuning."""
        fields = asdict(self)
        if not self.tuning:
            del fields["tuning"]
        return fields


@dataclass(frozen=True, slots=True)
class Canary:
    """A prompt and its greedy continuation, that a replica must reproduce before it serves.

    Attributes:
        prompt: token ids.
        continuation: token ids of the variant's own admitted run; of the source framework where nothing ran it.
        tolerance_nats: 0 when every token must be the same. Else by how much another token may be likelier, at most.
    """

    prompt: tuple[int, ...]
    continuation: tuple[int, ...]
    tolerance_nats: float = 0.0


@dataclass(frozen=True, slots=True)
class VariantManifest:
    """A compiled variant. Sizes in tokens and bytes; digests are "sha256:…".

    Attributes:
        driver: IREE HAL driver that runs it, for instance "local-task" or "cuda".
        context_tokens: longest sequence (prompt and output) it serves; at most max of the context buckets.
        cache_tokens: rows of the cache for each slot.
        weights_scope: parameter scope the module asks for.
        picks: largest logits that functions give beside all of them; 0 for none.
    """

    model_id: str
    architecture: str
    target: str
    compiled_target: str
    driver: str
    recipe: RecipeFacts
    vocabulary_size: int
    eos_token_ids: tuple[int, ...]
    context_tokens: int
    cache_tokens: int
    slots: int
    module: FileRef
    weights: tuple[FileRef, ...]
    weights_scope: str
    functions: tuple[Function, ...]
    canary: Canary
    memory_bytes: int
    abi: str = ABI
    toolchain: dict[str, str] = field(default_factory=dict)
    picks: int = 0

    def to_bytes(self) -> bytes:
        """Canonical JSON. Without picks and tolerance it is that of engines which do not know them."""
        fields = asdict(self) | {"recipe": self.recipe.as_dict()}
        if not self.picks:
            del fields["picks"]
        if not self.canary.tolerance_nats:
            del fields["canary"]["tolerance_nats"]
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @property
    def variant_id(self) -> str:
        """Digest in the form "sha256:…", that is "sha256:" and the digest of the canonical bytes."""
        return digest_of(self.to_bytes())

    @property
    def files(self) -> tuple[FileRef, ...]:
        """Every file but the manifest."""
        return (self.module, *self.weights)

    @classmethod
    def from_bytes(cls, data: bytes) -> VariantManifest:
        """Reads canonical JSON.

        Raises:
            ValueError: not JSON, another ABI, or fields missing or unknown.
        """
        try:
            raw: dict[str, Any] = json.loads(data)
            if raw.get("abi") != ABI:
                raise ValueError(f"manifest of ABI {raw.get('abi')!r}, this engine speaks {ABI!r}")
            recipe: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw["recipe"].items()}
            raw["recipe"] = RecipeFacts(**recipe)
            raw["eos_token_ids"] = tuple(raw["eos_token_ids"])
            raw["module"] = FileRef(**raw["module"])
            raw["weights"] = tuple(FileRef(**w) for w in raw["weights"])
            raw["functions"] = tuple(Function(**f) for f in raw["functions"])
            canary: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw["canary"].items()}
            raw["canary"] = Canary(**canary)
            return cls(**raw)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a variant manifest: {error}") from error


def digest_of(data: bytes) -> str:
    """Digest in the form "sha256:…": "sha256:" and the hexadecimal digest of bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
