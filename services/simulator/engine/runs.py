"""What a replica does until its batch changes next: equal steps with equal pauses, as one event. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.simulator.engine.cost import StepCost


@dataclass(frozen=True, slots=True)
class Run:
    """Decode steps, prompt tokens, or both.

    Attributes:
        steps: decode steps; 0 for a prompt alone, which then takes one `step_s`.
        step_s: from the beginning of a step to its end, with what is taken in beside it.
        chunk_tokens: prompt tokens taken in by its end.
        wait_s: before the first step, `gap_s` between two.
        prefill_mj, decode_mj: energy above loaded idle of all of it.
        rests_s: nothing is done for so long at its end.
    """

    steps: int
    step_s: float
    chunk_tokens: int = 0
    wait_s: float = 0.0
    gap_s: float = 0.0
    prefill_mj: float = 0.0
    decode_mj: float = 0.0
    rests_s: float = 0.0

    @property
    def length_s(self) -> float:
        """From its beginning to its end."""
        steps = max(self.steps, 1)
        return self.wait_s + steps * self.step_s + (steps - 1) * self.gap_s + self.rests_s

    def cut(self, after_s: float) -> Run:
        """A run of decode steps that ends with the step under way, or at once between two."""
        if self.wait_s and after_s < self.wait_s:
            return replace(self, steps=0, step_s=0.0, wait_s=max(after_s, 0.0), decode_mj=0.0)
        if not self.steps:
            return self
        each_s = self.step_s + self.gap_s
        steps = int((after_s - self.wait_s) / each_s) + 1
        if steps >= self.steps:
            return self
        stepped_s = self.wait_s + steps * self.step_s + (steps - 1) * self.gap_s
        return replace(
            self, steps=steps, decode_mj=self.decode_mj * steps / self.steps, rests_s=max(after_s - stepped_s, 0.0)
        )

    def paced(self, pace_s: float, wait_s: float) -> Run:
        """Decode steps a pace apart; at once as long as they are late.

        Args:
            wait_s: how long the first may wait; below 0 by as much as it is late.
        """
        gap_s = pace_s - self.step_s
        if gap_s <= 0.0:
            return self
        if wait_s < 0.0:
            steps = min(self.steps, int(-wait_s / gap_s) + 1)
            return replace(self, steps=steps, decode_mj=self.decode_mj * steps / self.steps)
        return replace(self, wait_s=wait_s, gap_s=gap_s)


def prompt_run(cost: StepCost, tokens: int, start: int) -> Run:
    """Prompt tokens start … start+tokens-1 alone."""
    take_s = cost.prefill_s(tokens, start)
    return Run(0, take_s, tokens, prefill_mj=take_s * prefill_mw(cost))


def decode_run(cost: StepCost, steps: int, reach: int, context: float, sequences: int) -> Run:
    """Steps of a batch whose context grows by a token of each sequence with each step.

    Args:
        reach: sequences that a step computes.
        context: tokens in the cache before the first.
    """
    step_s = cost.step_s(reach, context + 0.5 * sequences * (steps - 1))
    return Run(steps, step_s, decode_mj=steps * step_s * decode_mw(cost, reach))


def mixed_run(cost: StepCost, steps: int, tokens: int, start: int, reach: int, context: float) -> Run:
    """Steps each with its share of prompt tokens start … start+tokens-1 beside it."""
    take_s = cost.prefill_s(tokens, start)
    decode_s = cost.step_s(reach, context)
    return Run(
        steps,
        take_s / steps + decode_s,
        tokens,
        prefill_mj=take_s * prefill_mw(cost),
        decode_mj=steps * decode_s * decode_mw(cost, reach),
    )


def prefill_mw(cost: StepCost) -> float:
    """Above loaded idle."""
    return (cost.prefill_power_w - cost.idle_power_w) * 1000.0


def decode_mw(cost: StepCost, reach: int) -> float:
    """Above loaded idle."""
    return (cost.decode_power_w[reach] - cost.idle_power_w) * 1000.0
