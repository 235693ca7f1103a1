"""The pure decisions of the agent: which target is obeyed, what is done next, how long to wait."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.node_agent.core import reconcile
from services.node_agent.core.backoff import RECONNECT, RESTART, Backoff
from services.node_agent.core.reconcile import Create, Drain, Observed, Remove, Retry, Serve, Settle
from services.node_agent.core.replica_states import TABLE, Event, IllegalEvent, ReplicaState, after
from services.node_agent.core.target import ReplicaSpec, Target, accept
from tradewind.domain.errors import GenerationConflict, InvalidField, StaleGeneration
from tradewind.domain.manifest import FileRef

NODE = "n1"


def spec(replica_id: str = "r1", **changes: object) -> ReplicaSpec:
    made = ReplicaSpec(replica_id, "d", "v", FileRef("m", "sha256:1", 1), "p", "cpu0", "cpu/1", (0,), 4)
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def target(fencing: int, generation: int, step: int = 0, content: str = "c", replicas: tuple = ()) -> Target:
    return Target(NODE, fencing, generation, step, replicas, content)


class TestTargets:
    def test_the_first_is_taken(self) -> None:
        assert accept(None, target(0, 0), NODE)

    def test_a_repeat_changes_nothing(self) -> None:
        assert not accept(target(1, 2, 3), target(1, 2, 3), NODE)

    def test_same_numbers_with_another_content_are_an_error(self) -> None:
        with pytest.raises(GenerationConflict):
            accept(target(1, 2, 3), target(1, 2, 3, content="d"), NODE)

    def test_another_node_s_is_refused(self) -> None:
        with pytest.raises(InvalidField, match="node_id"):
            accept(None, target(1, 1), "n2")

    @pytest.mark.parametrize("ids", [("a", "a"), ("",)])
    def test_replicas_need_names_of_their_own(self, ids: tuple[str, ...]) -> None:
        with pytest.raises(InvalidField, match="replica ids"):
            accept(None, target(1, 1, replicas=tuple(spec(i) for i in ids)), NODE)

    @given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=30))
    def test_whatever_comes_in_whatever_order_the_greatest_wins_and_none_goes_back(self, orders: list) -> None:
        newest = None
        for order in orders:
            offered = target(*order, content=str(order))
            if newest is not None and order < newest.order:
                with pytest.raises(StaleGeneration):
                    accept(newest, offered, NODE)
            elif accept(newest, offered, NODE):
                newest = offered
        assert newest is not None and newest.order == max(orders)


class TestStates:
    @pytest.mark.parametrize("state", ReplicaState)
    @pytest.mark.parametrize("event", Event)
    def test_the_table_is_all_there_is(self, state: ReplicaState, event: Event) -> None:
        if (state, event) in TABLE:
            assert after(state, event) is TABLE[state, event]
        else:
            with pytest.raises(IllegalEvent):
                after(state, event)

    def test_every_state_can_be_left_and_reached(self) -> None:
        reached, frontier = {ReplicaState.FETCHING}, [ReplicaState.FETCHING]
        while frontier:
            here = frontier.pop()
            for (state, _), then in TABLE.items():
                if state is here and then not in reached:
                    reached.add(then)
                    frontier.append(then)
        assert reached == set(ReplicaState)
        assert all(after(s, Event.REMOVE) is ReplicaState.STOPPING for s in ReplicaState if s is not s.STOPPING)


S = ReplicaState


class TestReconcile:
    @pytest.mark.parametrize(
        ("wanted", "seen", "expected"),
        [
            ([spec()], [], [Create(spec())]),
            ([], [Observed(spec(), S.READY)], [Remove("r1")]),
            ([], [Observed(spec(), S.FETCHING)], [Remove("r1")]),
            ([], [Observed(spec(), S.READY, 2)], [Drain("r1")]),
            ([], [Observed(spec(), S.DRAINING, 2)], []),
            ([], [Observed(spec(), S.DRAINING, 0)], [Remove("r1")]),
            (
                [spec("r2", cpu_ids=(7,))],
                [Observed(spec(), S.READY, 2)],
                [Drain("r1"), Create(spec("r2", cpu_ids=(7,)))],
            ),
            ([spec("r2")], [Observed(spec(), S.READY, 2)], [Remove("r1"), Create(spec("r2"))]),
            ([], [Observed(spec(), S.STOPPING)], []),
            ([spec()], [Observed(spec(), S.READY)], []),
            ([spec()], [Observed(spec(), S.STARTING)], []),
            ([spec(draining=True)], [Observed(spec(), S.STARTING)], []),
            ([spec(draining=True)], [Observed(spec(), S.READY, 2)], [Drain("r1")]),
            ([spec(draining=True)], [Observed(spec(), S.DRAINING, 2)], []),
            ([spec(draining=True)], [Observed(spec(), S.DRAINING, 0)], [Settle("r1")]),
            ([spec(draining=True)], [Observed(spec(), S.DRAINED)], []),
            ([spec()], [Observed(spec(), S.DRAINED)], [Serve("r1")]),
            ([spec()], [Observed(spec(), S.DRAINING, 1)], [Serve("r1")]),
            ([spec()], [Observed(spec(), S.FAILED, retry_at_s=9.0)], [Retry("r1")]),
            ([spec()], [Observed(spec(), S.FAILED, retry_at_s=11.0)], []),
            ([spec(draining=True)], [Observed(spec(), S.FAILED, retry_at_s=9.0)], []),
            ([spec(cpu_ids=(1,))], [Observed(spec(), S.READY)], [Remove("r1")]),
            ([spec("r2")], [Observed(spec(), S.READY)], [Remove("r1"), Create(spec("r2"))]),
        ],
    )
    def test_what_is_done(self, wanted: list, seen: list, expected: list) -> None:
        assert list(reconcile.step(wanted, seen, now_s=10.0)) == expected

    def test_the_next_retry_is_the_soonest(self) -> None:
        seen = [Observed(spec("a"), S.FAILED, retry_at_s=7), Observed(spec("b"), S.FAILED, retry_at_s=5)]
        assert reconcile.next_retry_s([*seen, Observed(spec("c"), S.READY)]) == 5
        assert reconcile.next_retry_s([]) is None

    @settings(max_examples=200, deadline=None)
    @given(
        wanted=st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.integers(0, 1)), unique_by=lambda w: w[0]),
        seen=st.lists(
            st.tuples(st.sampled_from("abcd"), st.sampled_from(S), st.integers(0, 1), st.integers(0, 1)),
            unique_by=lambda s: s[0],
        ),
    )
    def test_from_any_start_the_wanted_state_is_reached_and_then_nothing_is_done(
        self, wanted: list, seen: list
    ) -> None:
        specs = [spec(name, draining=drain, cpu_ids=(cpu,)) for name, drain, cpu in wanted]
        world = {name: Observed(spec(name, cpu_ids=(cpu,)), state, hand) for name, state, hand, cpu in seen}
        for _ in range(12):
            world = {name: passed for name, o in world.items() if (passed := pass_time(o)) is not None}
            for action in reconcile.step(specs, list(world.values()), now_s=100.0):
                apply(world, action)
        assert not reconcile.step(specs, list(world.values()), now_s=0.0)
        assert {name: o.spec.process for name, o in world.items()} == {s.replica_id: s.process for s in specs}
        for wish in specs:
            state = world[wish.replica_id].state
            assert state is S.READY if not wish.draining else state in (S.DRAINED, S.FAILED)


def pass_time(seen: Observed) -> Observed | None:
    """What happens by itself: loads finish, requests finish, processes end."""
    if seen.state is S.STOPPING:
        return None
    event = {S.FETCHING: Event.FETCHED, S.STARTING: Event.READY}.get(seen.state)
    state = after(seen.state, event) if event else seen.state
    return dataclasses.replace(seen, state=state, in_hand=0)


def apply(world: dict[str, Observed], action: reconcile.Action) -> None:
    if isinstance(action, Create):
        world[action.spec.replica_id] = Observed(action.spec, S.FETCHING)
        return
    event = {Retry: Event.RETRY, Drain: Event.DRAIN, Settle: Event.EMPTIED, Serve: Event.SERVE, Remove: Event.REMOVE}
    seen = world[action.replica_id]
    world[action.replica_id] = dataclasses.replace(seen, state=after(seen.state, event[type(action)]))


@pytest.mark.parametrize("backoff", [RESTART, RECONNECT, Backoff(0.5, 8)])
def test_pauses_grow_to_a_limit_and_are_never_none(backoff: Backoff) -> None:
    whole = [backoff.pause_s(n, 0.0) for n in range(1, 200)]
    assert whole[0] == backoff.first_s and whole[-1] == backoff.most_s
    assert whole == sorted(whole)
    for n in (1, 5, 100):
        assert 0 < backoff.pause_s(n, 0.999) < backoff.pause_s(n, 0.0)
