"""What decisions were made from, kept with them: compressed, of bounded size and number."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator.core.adaptation.adapt import Memory
from services.orchestrator.core.memo import Unreadable
from services.orchestrator.core.planning.plan import Plan
from services.orchestrator.core.replay import Inputs, Look, answer_of, read, written
from services.orchestrator.core.step import watch
from tradewind.store.tables import DecisionInputsRow, DecisionRow
from tradewind.v1 import orchestrator_pb2

# Inputs of so many decisions are kept, weeks of an ordinary cluster; the decisions themselves are kept for ever.
MOST_KEPT: Final = 1_000
# A thousand nodes with fifty deployments come to a few hundred kilobytes; larger ones are not kept.
MOST_BYTES: Final = 8 * 1024 * 1024
# Fast: a decision must not wait for its journal.
_LEVEL: Final = 3


@dataclass(frozen=True, slots=True)
class KeptInputs:
    """Inputs as stored; `answer` is the digest of what was decided from them."""

    kind: str
    answer: str
    data: bytes


def kept_inputs(inputs: Inputs, plan: Plan) -> KeptInputs | None:
    """Inputs as they are kept, None when they are too large."""
    kind, text = written(inputs)
    data = zlib.compress(text.encode(), _LEVEL)
    return KeptInputs(kind, answer_of(plan), data) if len(data) <= MOST_BYTES else None


def inputs_of(kept: KeptInputs) -> Inputs:
    """Inputs as they were.

    Raises:
        Unreadable: they do not fit this version.
    """
    try:
        return read(kept.kind, zlib.decompress(kept.data).decode())
    except (zlib.error, UnicodeDecodeError) as error:
        raise Unreadable(f"the inputs are damaged: {error}") from error


async def keep_inputs(session: AsyncSession, decision_id: str, sequence: int, kept: KeptInputs) -> None:
    """Stores inputs and forgets the oldest."""
    session.add(
        DecisionInputsRow(
            decision_id=decision_id, sequence=sequence, kind=kept.kind, answer=kept.answer, inputs=kept.data
        )
    )
    await session.execute(delete(DecisionInputsRow).where(DecisionInputsRow.sequence <= sequence - MOST_KEPT))
    await session.flush()


async def newest_memory(session: AsyncSession) -> tuple[Memory, float]:
    """What was learnt at the newest decision that the loop made by itself; nothing when there is none to be read.

    Returns:
        It, and the wall clock minus the clock that it was learnt by, in seconds.
    """
    wanted = select(DecisionInputsRow, DecisionRow.record).where(DecisionInputsRow.kind == Look.__name__)
    joined = wanted.join(DecisionRow, DecisionRow.decision_id == DecisionInputsRow.decision_id)
    row = (await session.execute(joined.order_by(DecisionInputsRow.sequence.desc()).limit(1))).one_or_none()
    if row is None:
        return Memory(), 0.0
    kept, record = row
    try:
        inputs = inputs_of(KeptInputs(kept.kind, kept.answer, kept.inputs))
    except Unreadable:
        return Memory(), 0.0
    assert isinstance(inputs, Look)
    decided = orchestrator_pb2.Decision.FromString(record).create_time.ToNanoseconds() / 1e9
    # The decision was made after this look had learnt, too.
    return watch(inputs.state, inputs.seen, inputs.now_s).learnt, decided - inputs.now_s


async def find_inputs(session: AsyncSession, decision_ids: Sequence[str]) -> dict[str, KeptInputs]:
    """Inputs of decisions that are still kept."""
    wanted = select(DecisionInputsRow).where(DecisionInputsRow.decision_id.in_(decision_ids))
    rows = (await session.execute(wanted)).scalars()
    return {row.decision_id: KeptInputs(row.kind, row.answer, row.inputs) for row in rows}
