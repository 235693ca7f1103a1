"""The router's choice, as a pure function."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.core.choice import capacity, choose
from services.gateway.core.room import full
from tradewind.domain.routes import ReplicaRoute


def replica(name: str, batch_limit: int = 1, *, draining: bool = False) -> ReplicaRoute:
    return ReplicaRoute(name, "n1", "127.0.0.1:1", "sha256:0", "f32", batch_limit, draining)


def test_requests_are_shared_by_batch_limit() -> None:
    replicas = [replica("small", 2), replica("large", 6)]
    outstanding: Counter[str] = Counter()
    for turn in range(80):
        chosen = choose(replicas, outstanding, turn)
        assert chosen is not None
        outstanding[chosen.replica_id] += 1
    assert outstanding == {"small": 20, "large": 60}


def test_a_weight_makes_a_replica_smaller_and_a_limit_makes_it_full() -> None:
    replicas = [replace(replica("slow", 4), weight=0.5), replica("fast", 4)]
    outstanding: Counter[str] = Counter()
    for turn in range(60):
        chosen = choose(replicas, outstanding, turn)
        assert chosen is not None
        outstanding[chosen.replica_id] += 1
    assert outstanding == {"slow": 20, "fast": 40}
    limited = [replace(replica("a", 4), sequences_limit=3), replica("b", 4)]
    assert full(limited, {"a": 2, "b": 99}) == frozenset()
    assert full(limited, {"a": 3, "b": 99}) == {"a"}


def test_equal_replicas_take_turns() -> None:
    replicas = [replica("b"), replica("a"), replica("c")]
    chosen = [choose(replicas, {}, turn) for turn in range(6)]
    assert [r.replica_id for r in chosen if r] == ["a", "b", "c", "a", "b", "c"]


def filled(name: str, rank: int, sequences: int = 4, tokens: int = 200) -> ReplicaRoute:
    return replace(replica(name, 8), fill_sequences=sequences, fill_tokens=tokens, fill_rank=rank)


def test_one_replica_is_filled_before_the_next_one_works() -> None:
    replicas = [filled("a", 1), filled("b", 0)]
    at_work, unanswered = Counter[str](), Counter[str]()
    order = []
    for turn in range(8):
        chosen = choose(replicas, at_work, turn, (), unanswered)
        assert chosen is not None
        order.append(chosen.replica_id)
        at_work[chosen.replica_id] += 1
    assert order[:6] == ["b"] * 4 + ["a"] * 2, "the lowest rank first, up to its sequences"
    long, short = (choose(replicas, {"b": 2}, 0, (), {"b": 150}, tokens) for tokens in (51, 50))
    assert (long, short) == (replicas[0], replicas[1]), "b takes 200 prompt tokens without an answer"
    alone = choose(replicas, {"b": 2}, 0, (), {}, 5000)
    assert alone == replicas[1], "one longer than any fill goes where nothing waits"


def test_when_all_are_full_the_fewest_waiting_decide() -> None:
    replicas = [filled("a", 0, tokens=100), filled("b", 1, tokens=100)]
    chosen = choose(replicas, {"a": 3, "b": 9}, 0, (), {"a": 300, "b": 200}, 10)
    assert chosen == replicas[1]


def test_draining_and_excluded_replicas_get_nothing() -> None:
    replicas = [replica("a", draining=True), replica("b"), replica("c")]
    assert choose(replicas, {"c": 99}, 0, excluded={"b"}) == replicas[2]
    assert choose(replicas, {}, 0, excluded={"b", "c"}) is None
    assert choose([], {}, 0) is None


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(0, 50)), min_size=1, max_size=8), st.integers(0, 100))
@settings(deadline=None)
def test_no_other_replica_would_be_less_loaded(shape: list[tuple[int, int]], turn: int) -> None:
    replicas = [replica(f"r{i}", limit) for i, (limit, _) in enumerate(shape)]
    outstanding = {f"r{i}": count for i, (_, count) in enumerate(shape)}
    chosen = choose(replicas, outstanding, turn)
    assert chosen is not None
    load = (outstanding[chosen.replica_id] + 1) / chosen.batch_limit
    assert all((outstanding[r.replica_id] + 1) / r.batch_limit >= load for r in replicas)


def test_capacity_counts_places_and_queue() -> None:
    replicas = [replica("a", 4), replica("b", 2), replace(replica("c", 8), draining=True)]
    assert capacity(replicas, 3) == 24
    assert capacity([], 3) == 0


def test_a_replica_that_holds_the_prompt_goes_first_while_it_has_room() -> None:
    replicas = [replica("a", 4), replica("b", 4)]
    held = {"b": 500, "a": 64}
    assert chosen_of(replicas, {}, held) == "b"
    assert chosen_of(replicas, {"b": 3}, held) == "b"
    assert chosen_of(replicas, {"b": 4}, held) == "a"
    # What is saved has to be worth it.
    assert chosen_of(replicas, {"b": 1}, {"b": 100, "a": 64}) == "a"


def test_a_replica_that_sleeps_is_not_woken_by_what_it_holds() -> None:
    replicas = [filled("a", 0), filled("b", 1)]
    assert chosen_of(replicas, {"a": 1}, {"b": 500}) == "a"
    assert chosen_of(replicas, {"a": 1, "b": 1}, {"b": 500}) == "b"
    # 150 wait and 300 come, of which 250 are held: the limit of 200 is kept.
    assert chosen_of(replicas, {"a": 1, "b": 1}, {"b": 250}, {"b": 150}) == "b"
    assert chosen_of(replicas, {"a": 1, "b": 1}, {"b": 249}, {"b": 150}) == "a"


def chosen_of(
    replicas: list[ReplicaRoute],
    at_work: dict[str, int],
    held: dict[str, int],
    unanswered: dict[str, int] | None = None,
) -> str:
    chosen = choose(replicas, at_work, 0, (), unanswered or {}, 300, held)
    assert chosen is not None
    return chosen.replica_id
