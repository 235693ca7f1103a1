"""What users wish for: deployments, their SLO and demand. Pure values; no decisions here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

# A wish without demand is planned for one request at a time: figures are those of a replica with one sequence, and
# energies are compared at this rate, which is a person typing a question now and then.
NOMINAL_REQUESTS_PER_S: Final = 0.1
# Shape of a request when the wish does not say: a short question and a short answer.
DEFAULT_PROMPT_TOKENS: Final = 128
DEFAULT_OUTPUT_TOKENS: Final = 64
# Share of the TPOT limit that tokens are paced at; the rest is for prompts that get between them.
PACE_SHARE: Final = 0.8
# So many sequences have to be at work together on average at that pace; of fewer none would share a step with another.
LEAST_PACED: Final = 1.0


class Metric(StrEnum):
    """Which latency a limit speaks of."""

    TTFT = "TTFT"
    TPOT = "TPOT"
    E2E = "E2E"


class Objective(StrEnum):
    """What to make least of."""

    ENERGY = "energy"
    LATENCY = "latency"
    COST = "cost"


@dataclass(frozen=True, slots=True)
class LatencyLimit:
    """Upper limit of one latency at one percentile in (0, 100)."""

    metric: Metric
    percentile: float
    limit_ms: float


@dataclass(frozen=True, slots=True)
class Slo:
    """Limits that hold together; None means no such limit. The same fields as `tradewind.v1.Slo`."""

    latency: tuple[LatencyLimit, ...] = ()
    energy_per_token_mj: float | None = None
    power_mw: float | None = None
    min_top1_agreement: float | None = None
    max_perplexity_increase: float | None = None
    availability: float | None = None

    def percentile_of(self, metric: Metric) -> float:
        """The highest percentile limited for a metric, 95 when none is."""
        return max((limit.percentile for limit in self.latency if limit.metric is metric), default=95.0)

    def strictest_ms(self, metric: Metric) -> float | None:
        """The lowest limit of a metric at any percentile, None without one."""
        return min((float(limit.limit_ms) for limit in self.latency if limit.metric is metric), default=None)


@dataclass(frozen=True, slots=True)
class Demand:
    """Expected load. `requests_per_s` 0 means one request at a time, now and then.

    Attributes:
        requests_per_s: what is provisioned for.
        mean_requests_per_s: what energy is weighed at; 0 means `requests_per_s`.
        prompt_tokens_p95: prompts that must fit and be within reach of a profile; 0 means `prompt_tokens`.
        output_tokens_p95: outputs that must fit; 0 means `output_tokens`.
    """

    requests_per_s: float = 0.0
    prompt_tokens: int = DEFAULT_PROMPT_TOKENS
    output_tokens: int = DEFAULT_OUTPUT_TOKENS
    mean_requests_per_s: float = 0.0
    prompt_tokens_p95: int = 0
    output_tokens_p95: int = 0

    @property
    def compared_requests_per_s(self) -> float:
        """The rate at which energies are compared."""
        return self.mean_requests_per_s or self.requests_per_s or NOMINAL_REQUESTS_PER_S

    @property
    def longest_tokens(self) -> int:
        """Prompt and output that a context must hold."""
        prompt = max(self.prompt_tokens, self.prompt_tokens_p95)
        return prompt + max(self.output_tokens, self.output_tokens_p95)


@dataclass(frozen=True, slots=True)
class Spread:
    """Replicas over failure domains: at least `domains` values of the node label, none with more than its share.

    Attributes:
        label: node label that names the domain, for instance "rack"; "node" stands for the node itself.
        domains: fewest domains; a domain holds at most ⌈replicas / domains⌉.
    """

    label: str = "rack"
    domains: int = 2


@dataclass(frozen=True, slots=True)
class Deployment:
    """A wish with its identity.

    Attributes:
        generation: grows with each change of the wish.
        pinned_variant_id: empty means the planner's choice.
        chain: variants of a fallback chain, first choice first; a device class takes the first that is profiled there,
            and no others are used. Empty means no chain.
        max_replicas: 0 means no limit.
        node_selector: labels a replica's node must have.
        spread: None means wherever there is room.
        trust_level: deployments of different levels never share a board; empty is a level like any other.
        scale_to_zero: with no request for long it runs nothing; the next request waits for a cold start.
        cold_start_s: the longest cold start accepted for that; 0 means any.
    """

    deployment_id: str
    name: str
    model_id: str
    slo: Slo = Slo()
    objective: Objective = Objective.ENERGY
    demand: Demand = Demand()
    pinned_variant_id: str = ""
    min_replicas: int = 1
    max_replicas: int = 0
    node_selector: tuple[tuple[str, str], ...] = ()
    generation: int = 1
    spread: Spread | None = None
    trust_level: str = ""
    scale_to_zero: bool = False
    cold_start_s: float = 0.0
    chain: tuple[str, ...] = ()

    @property
    def token_limit_ms(self) -> float | None:
        """What a later token may take: the TPOT limit, or the end-to-end one shared out over the longest answer.

        Three digits: more would make each change of the lengths seen another limit. None without either limit.
        """
        tpot_ms, e2e_ms = self.slo.strictest_ms(Metric.TPOT), self.slo.strictest_ms(Metric.E2E)
        if e2e_ms is None:
            return tpot_ms
        longest = max(self.demand.output_tokens, self.demand.output_tokens_p95, 1)
        shared_ms = float(f"{e2e_ms / longest:.3g}")
        return shared_ms if tpot_ms is None else min(tpot_ms, shared_ms)

    @property
    def pace_ms(self) -> float:
        """How long a token may be held back after the one before it, for larger batches; 0 for not at all.

        Only where least energy is wanted, and tokens have a limit of their own: of an end-to-end limit nobody knows
        what a token may take before the answer has ended. And only under a load that fills steps: who is alone would
        wait for nobody. By Little's law requests at work are tokens a second times the time of a token.
        """
        tpot_ms = self.slo.strictest_ms(Metric.TPOT)
        if self.objective is not Objective.ENERGY or tpot_ms is None or self.slo.strictest_ms(Metric.E2E) is not None:
            return 0.0
        pace_ms = PACE_SHARE * tpot_ms
        together = self.demand.requests_per_s * self.demand.output_tokens * pace_ms / 1000.0
        return float(f"{pace_ms:.3g}") if together >= LEAST_PACED else 0.0

    def names(self, variant_id: str) -> bool:
        """Whether it asks for this very variant, by a pin or in its chain."""
        return variant_id == self.pinned_variant_id or variant_id in self.chain
