"""What a locked SM clock does to speed and power: a stated, cautious model.

Decode is bound by memory: part of a step does not depend on the SM clock. Prefill is bound by compute: all of it does.
Of the power above loaded idle a part (memory, fabric) stays and the rest falls with a power of the clock. On an H200
locked clocks saved up to 32 % of decode energy at little loss of throughput (arXiv 2605.11999); GreenLLM (2508.16449)
and VoltanaLLM (2509.04827) report up to 34 and 36 % against the default governor. The model's best is below those, and
keeps idle power as it is, although lower clocks lower it too. Every figure from it is modelled.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from services.simulator.engine.cost import StepCost

# Share of a decode step that waits for memory whatever the SM clock is.
MEMORY_BOUND_SHARE: Final = 0.7
# Share of active power that the SM clock does not change, and the exponent of the rest: voltage falls with the clock.
FIXED_POWER_SHARE: Final = 0.3
POWER_EXPONENT: Final = 1.7


def at_clock(cost: StepCost, ratio: float) -> StepCost:
    """The cost at a share of the default clock, in (0, 1]."""
    if ratio >= 1.0:
        return cost
    slower = MEMORY_BOUND_SHARE + (1.0 - MEMORY_BOUND_SHARE) / ratio
    drawn = FIXED_POWER_SHARE + (1.0 - FIXED_POWER_SHARE) * ratio**POWER_EXPONENT
    idle = cost.idle_power_w
    return replace(
        cost,
        decode_s=tuple(s * slower for s in cost.decode_s),
        context_s=cost.context_s * slower,
        prefill_token_s=cost.prefill_token_s / ratio,
        prefill_square_s=cost.prefill_square_s / ratio,
        decode_power_w=tuple(idle + (w - idle) * drawn for w in cost.decode_power_w),
        prefill_power_w=idle + (cost.prefill_power_w - idle) * drawn,
    )
