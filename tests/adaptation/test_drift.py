"""What replicas really do: profiles follow it over minutes, routing weights at once, and noise moves neither."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.orchestrator.core.adaptation.drift import (
    DEAD_BAND,
    LEAST_FACTOR,
    LEAST_SAMPLES,
    MOST_FACTOR,
    Drift,
    corrected,
    drifted,
)
from services.orchestrator.core.facts.blueprint import EMPTY, Blueprint, NodeLayout, Replica, child_of
from services.orchestrator.core.facts.catalog import Catalog
from services.orchestrator.core.facts.fleet import Partition, PowerSetting
from services.orchestrator.core.facts.traffic import Speed
from services.orchestrator.core.rollout.weights import weights_of
from tests.orchestrator.worlds import CPU, GIB, profile, variant

FAST, LEAN = variant("fast"), variant("lean")
# 20 ms an output token alone, 24 ms with two at work.
CATALOG = Catalog((FAST, LEAN), tuple(profile(v.variant_id, "cpu/1", tpot_ms=20.0) for v in (FAST, LEAN)))
LOW, EASED = PowerSetting(900), PowerSetting(eased_sm_clock_mhz=900)
CLOCKED = replace(CATALOG, profiles=tuple(replace(p, power=s) for p in CATALOG.profiles for s in (p.power, LOW, EASED)))
KEY = (FAST.variant_id, CPU)


def replica(name: str, *, batch: int = 4, capacity: float = 0.0, kind: str = "cpu/1") -> Replica:
    """A replica of "fast" on one core."""
    place = Partition(f"cpu0:{name}", "cpu0", kind, (0,))
    manifest = FAST.manifest
    return Replica(name, "d", "n1", "m", FAST.variant_id, manifest, place, batch, CPU, GIB, False, capacity)


def speed(name: str, tpot_ms: float, *, sequences: float = 1.0, samples: int = 50, variant_id: str = "") -> Speed:
    return Speed("n1", name, 100.0, tpot_ms, sequences, samples, variant_id)


def blueprint(*names: str, power: PowerSetting | None = None) -> Blueprint:
    layouts = (NodeLayout("n1", (), (("cpu0", power),)),) if power else ()
    return child_of(EMPTY, tuple(replica(name) for name in names), (), layouts)


def paced(pace_ms: float) -> Blueprint:
    """Of a replica that holds its tokens back."""
    return child_of(EMPTY, (replace(replica("a"), pace_ms=pace_ms),), (), ())


def after(speeds: tuple[Speed, ...], seconds: float = 1800.0, plan: Blueprint | None = None) -> tuple[Drift, ...]:
    """Drifts after so long of the same speeds, a look in each ten seconds."""
    found: tuple[Drift, ...] = ()
    for _ in range(int(seconds / 10.0)):
        found = drifted(found, speeds, plan or blueprint("a", "b"), CLOCKED, 10.0)
    return found


def factor(*speeds: Speed, seconds: float = 1800.0) -> float:
    return after(speeds, seconds)[0].factor


@pytest.mark.parametrize(
    ("tpot_ms", "expected"),
    [
        (20.0, 1.0), (22.8, 1.0), (17.2, 1.0), (24.0, 1.2), (30.0, 1.5), (14.0, 0.7),
        (200.0, MOST_FACTOR), (2.0, LEAST_FACTOR),
    ],
)  # fmt: skip
def test_a_factor_is_measured_over_predicted_outside_a_band_and_bounded(tpot_ms: float, expected: float) -> None:
    assert factor(speed("a", tpot_ms)) == pytest.approx(expected)


def test_it_is_held_against_the_profile_at_as_many_sequences_and_weighed_by_requests() -> None:
    assert factor(speed("a", 24.0, sequences=2.0)) == 1.0, "two at work take 24 ms by the profile"
    assert factor(speed("a", 40.0, samples=80), speed("b", 20.0, samples=20)) == pytest.approx(1.8)


def test_a_minute_moves_nothing_and_a_factor_comes_back_when_it_is_over() -> None:
    assert factor(speed("a", 60.0), seconds=60.0) == 1.0
    found = after((speed("a", 40.0),))
    assert found[0].factor == pytest.approx(2.0)
    for _ in range(180):
        found = drifted(found, (speed("a", 20.0),), blueprint("a"), CATALOG, 10.0)
    assert found[0].factor == 1.0


def test_noise_at_the_edge_of_the_band_moves_nothing() -> None:
    (edge,) = after((speed("a", 20.0 * (1.0 + DEAD_BAND + 0.03)),))
    assert edge.factor == pytest.approx(1.2)
    for _ in range(180):
        (edge,) = drifted((edge,), (speed("a", 20.0 * (1.0 + DEAD_BAND - 0.03)),), blueprint("a"), CATALOG, 10.0)
    assert edge.factor == pytest.approx(1.2), "back within the band by less than a step"


def test_what_says_nothing_of_the_planned_variant_is_left_out() -> None:
    slow = speed("a", 60.0)
    assert after((slow,)), "the others are held against one that counts"
    assert not after((replace(slow, samples=LEAST_SAMPLES - 1),))
    assert not after((replace(slow, variant_id=LEAN.variant_id),)), "a fallback"
    assert not after((replace(slow, replica_id="gone"),))
    assert after((slow,), plan=blueprint("a", power=LOW)), "at a clock that was profiled"
    assert after((slow,), plan=paced(50.0)), "slower than it was asked to be"
    assert not after((slow,), plan=paced(60.0)), "held back"
    assert not after((slow,), plan=blueprint("a", power=EASED)), "at an unknown clock"


def test_profiles_are_scaled_for_that_variant_and_energy_stays_as_measured() -> None:
    fast, lean = corrected(CATALOG, (Drift(*KEY, factor=1.5), Drift(LEAN.variant_id, "gpu:other", factor=2.0))).profiles
    assert lean == CATALOG.profiles[1]
    for now, measured in zip(fast.loads, CATALOG.profiles[0].loads, strict=True):
        assert now.tpot.p99_ms == 1.5 * measured.tpot.p99_ms
        assert now.ttft.mean_ms == 1.5 * measured.ttft.mean_ms
        assert now.energy_per_token_mj == measured.energy_per_token_mj
    assert corrected(CATALOG, (Drift(*KEY),)) is CATALOG


def weights(
    *speeds: Speed, replicas: tuple[Replica, ...] = (replica("a"), replica("b"), replica("c"))
) -> dict[str, float]:
    return dict(weights_of([("d", replicas)], speeds))


def test_a_straggler_is_given_less_in_proportion_and_small_differences_nothing() -> None:
    assert weights(speed("a", 20.0), speed("b", 28.0), speed("c", 22.0)) == {}
    assert weights(speed("a", 20.0), speed("b", 50.0), speed("c", 20.0)) == {"b": 0.4}
    assert weights(speed("a", 20.0), speed("b", 50.0)) == {"b": 0.4}, "of two the faster one is the measure"
    assert weights(speed("a", 20.0), speed("b", 50.0, samples=5), speed("c", 20.0)) == {}, "few requests are noise"


def test_only_replicas_alike_are_compared() -> None:
    others = (replica("a"), replica("b", kind="cpu/2"))
    assert weights(speed("a", 50.0), speed("b", 20.0), replicas=others) == {}


def test_a_place_weighs_what_the_plan_reckoned_against_the_best_place() -> None:
    planned = (replica("a", batch=4, capacity=8.0), replica("b", batch=8, capacity=8.0))
    assert weights(replicas=planned) == {"b": 0.5}
    assert weights(speed("a", 20.0), speed("b", 50.0), replicas=planned) == {"b": 0.2}, "and that it is slow, too"
    assert weights(replicas=(*planned, replica("c"))) == {}, "one that says no capacity"
