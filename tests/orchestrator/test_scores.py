"""Which options are worth choosing from."""

from __future__ import annotations

import pytest

from bench.orchestrator.fleet_of import situation
from services.orchestrator.core.facts.wish import Deployment
from services.orchestrator.core.planning.ground import Base, ground_of
from services.orchestrator.core.planning.offer import offer_of
from services.orchestrator.core.planning.points import points_of
from services.orchestrator.core.planning.scores import STANDING_SHARE, items_of
from services.orchestrator.core.planning.weigh import Option, weigh_all

_WORLD = situation(20, 3)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("noise", [3e-16, 1e-12])
def test_rounding_moves_no_choice(number: int, noise: float) -> None:
    """The same figures summed in another order differ in their last digits, and come in another order."""
    offer, wish = offer_of(_WORLD, ground_of(_WORLD)), _WORLD.deployments[number]
    points, _ = points_of(wish, offer)
    options = tuple(o for o in weigh_all(wish, points, offer.sheaves[wish.model_id]) if isinstance(o, Option))
    # Those of one size at equal figures, of which one batch limit is chosen.
    alike = tuple(o._replace(shown=options[0].shown, cost=options[0].cost) for o in options)
    noisy = tuple(_moved(o, noise if n % 2 else -noise) for n, o in enumerate(reversed(alike)))
    assert _bases(wish, alike) == _bases(wish, noisy)


def _moved(option: Option, by: float) -> Option:
    shown = option.shown._replace(capacity=option.shown.capacity * (1.0 + by))
    return option._replace(shown=shown, cost=option.cost * (1.0 - by))


def _bases(wish: Deployment, options: tuple[Option, ...]) -> set[Base]:
    return {item.base for item in items_of(wish, options, frozenset())}


@pytest.mark.parametrize("number", range(3))
def test_a_replica_of_the_option_that_takes_least_for_a_request_costs_what_it_draws_without_work(number: int) -> None:
    offer, wish = offer_of(_WORLD, ground_of(_WORLD)), _WORLD.deployments[number]
    points, _ = points_of(wish, offer)
    options = tuple(o for o in weigh_all(wish, points, offer.sheaves[wish.model_id]) if isinstance(o, Option))
    items = items_of(wish, options, frozenset())
    least = min(options, key=lambda o: o.shown.energy_per_token_mj).shown.energy_per_token_mj
    for item in items:
        shown, device = item.option.shown, item.option.point.device
        without_work = item.option.point.idle_mw - device.idle_power_mw * item.option.point.device_share
        more_mj = (shown.energy_per_token_mj - least) * wish.demand.output_tokens
        served = min(shown.capacity, wish.demand.requests_per_s) / wish.demand.requests_per_s
        expected = without_work + more_mj * served * wish.demand.compared_requests_per_s
        standing = item.option.cost / shown.replicas * STANDING_SHARE
        assert item.cost_mw == pytest.approx(expected + standing, rel=1e-3, abs=1.0)
