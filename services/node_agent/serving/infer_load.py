"""One request of a measurement to a tensor model: what it sends, and what its answer cost.

A load's prompt length is the length of its samples; an answer is one call, whose time stands where a generator's time
to first token stands, and nothing follows it.
"""

from __future__ import annotations

import math
from typing import Final

from services.node_agent.core.batching import Batching
from services.node_agent.core.measurement import LoadSpec, Sample
from services.node_agent.supervision.process import ReplicaProcess
from tradewind.domain.figures import FigureSource
from tradewind.domain.infer_manifest import InferManifest
from tradewind.domain.tensors import SIZES, TensorSpec
from tradewind.v1 import inference_pb2

# Samples have any length here: those beyond what a variant takes are cut to it.
ANY_LENGTH: Final = 1 << 30


def most_together(manifest: InferManifest, batch_limit: int) -> int:
    """Requests of one sample that a call takes together."""
    return Batching(manifest.functions, bool(manifest.mask), batch_limit).most_rows


def request_of(manifest: InferManifest, load: LoadSpec) -> inference_pb2.InferRequest:
    """One sample of a load's length, or of the next length that the variant has; masks are all ones."""
    lengths = sorted({function.length for function in manifest.functions})
    longer = next((length for length in lengths if length >= load.prompt_tokens), lengths[-1])
    length = min(load.prompt_tokens, longer) if manifest.mask else longer
    return inference_pb2.InferRequest(
        inputs=[_tensor(spec, length, ones=spec.name == manifest.mask) for spec in manifest.inputs]
    )


async def infer_once(process: ReplicaProcess, manifest: InferManifest, load: LoadSpec, limit_s: float) -> Sample:
    """What one request of a load took."""
    answer = inference_pb2.InferResponse.FromString(await process.infer(request_of(manifest, load), limit_s))
    usage = answer.usage
    return Sample(
        ttft_ms=usage.ttft_ms,
        tpot_ms=0.0,
        output_tokens=1,
        prefill_mj=usage.energy.energy_mj,
        decode_mj=0.0,
        source=FigureSource(usage.energy.source),
        method=usage.energy.method,
    )


def _tensor(spec: TensorSpec, length: int, *, ones: bool) -> inference_pb2.Tensor:
    shape = spec.sized(1, length)
    width = SIZES[spec.dtype]
    one = (1).to_bytes(width, "little") if ones and spec.dtype[0] in "iub" else bytes(width)
    return inference_pb2.Tensor(name=spec.name, dtype=spec.dtype, shape=shape, data=one * math.prod(shape))
