"""Simulator and fake library let exactly those slices be made that the enumeration of layouts calls legal.

Three programs that share no rule: the planner's enumeration, the simulator in Python, the fake in C. Layouts are
built in an order drawn for each, since boards must not care about it.
"""

from __future__ import annotations

import random

import pytest

from services.node_agent.core.mig import Layout, LayoutSpace, Slice
from services.node_agent.core.mig.model import Placement
from services.node_agent.gpu.faults import InvalidRequest, NoRoom

from .rigs import Rig
from .test_contract import MakeRig, on


def build(rig: Rig, uuid: str, slices: list[Slice]) -> None:
    """Makes them in this order, without compute instances."""
    for one in slices:
        rig.admin.create_gpu_instance(uuid, one.profile_id, Placement(one.start, one.size))


@pytest.mark.parametrize("make_rig", ["simulated", "nvml"], indirect=True)
@pytest.mark.parametrize(("product", "every"), [("h100-80", 23), ("a30", 1)])
def test_what_may_be_made_is_what_the_enumeration_calls_legal(make_rig: MakeRig, product: str, every: int) -> None:
    rig = make_rig(product)
    uuid = on(rig)
    table = rig.reader.table(uuid)
    legal = frozenset(LayoutSpace(table).layouts())
    draw = random.Random(7)
    tried = 0
    for layout in sorted(legal, key=str)[::every]:
        order = list(layout)
        draw.shuffle(order)
        build(rig, uuid, order)
        for profile in table.profiles:
            for place in profile.placements:
                more = Slice(place.start, place.size, profile.profile_id)
                allowed = more not in layout and Layout.of((*layout, more)) in legal
                assert makes(rig, uuid, more) is allowed, f"{table.describe([more])} on {table.describe(layout)}"
                tried += 1
        for one in rig.reader.instances(uuid):
            rig.admin.destroy_gpu_instance(uuid, one.gi_id)
    assert tried > 500


def makes(rig: Rig, uuid: str, one: Slice) -> bool:
    """Whether the board makes it; it is gone again afterwards."""
    try:
        gi_id = rig.admin.create_gpu_instance(uuid, one.profile_id, Placement(one.start, one.size))
    except (NoRoom, InvalidRequest):
        return False
    rig.admin.destroy_gpu_instance(uuid, gi_id)
    return True
