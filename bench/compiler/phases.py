"""What one recipe for each phase would gain over one for all, from the figures of a search.

    tradewind variant build MODEL --target cpu:host --json > build.json
    python -m bench.compiler.phases build.json

A pair takes the prefill functions of one candidate and the decode functions of another, of the same depth. Gains are of
the time of a request (a prompt of so many chunks, then so many tokens, alone or beside three others), best pair
against best single candidate, in each precision and over all. A pair keeps two sets of packed weights unless both
candidates read the same bytes.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# Prompt chunks and tokens generated of a request: a short answer to a long prompt, a chat, a long answer.
LOADS: Final = ((8, 32), (2, 64), (1, 256))


@dataclass(frozen=True, slots=True)
class Timed:
    """A candidate at one depth: milliseconds of a call of each function, by name."""

    recipe: str
    precision: str
    layers: int
    times: Mapping[str, float]

    def phase_ms(self, phase: str, batch: int) -> float:
        """A call of a phase: of a prefill, or of a decode of that many sequences."""
        wanted = "prefill" if phase == "prefill" else f"decode_b{batch}_"
        return min(time for name, time in self.times.items() if name.startswith(wanted))


def candidates(search: Mapping[str, Any]) -> list[Timed]:
    """Everything that a search timed."""
    return [
        Timed(
            candidate["recipe"],
            candidate["precision"],
            int(trial.get("layers", 0)),
            {cost["function"]: float(cost["time_ms"]) for cost in trial["costs"]},
        )
        for candidate in search["candidates"]
        for trial in candidate.get("trials", ())
        if trial.get("costs")
    ]


def request_ms(first: Timed, then: Timed, load: tuple[int, int], batch: int) -> float:
    """What a request costs whose prompt one candidate takes and whose tokens another, beside `batch` - 1 like it."""
    chunks, tokens = load
    return chunks * first.phase_ms("prefill", 1) + tokens * then.phase_ms("decode", batch) / batch


def rows(timed: list[Timed]) -> Iterator[str]:
    """Lines of a table: in each group and load the best candidate, the best pair, and what the pair gains."""
    groups = {(one.layers, one.precision) for one in timed} | {(one.layers, "any") for one in timed}
    for (layers, precision), load, batch in itertools.product(sorted(groups), LOADS, (1, 4)):
        group = [one for one in timed if one.layers == layers and precision in (one.precision, "any")]
        single = min(group, key=lambda one: request_ms(one, one, load, batch))
        pair = min(itertools.product(group, group), key=lambda two: request_ms(*two, load, batch))
        gain = request_ms(single, single, load, batch) / request_ms(*pair, load, batch) - 1
        names = " + ".join(dict.fromkeys(one.recipe for one in pair))
        depth, shown = f"{layers} layers" if layers else "whole", f"{load[0]} + {load[1]} × {batch}"
        yield f"| {depth} | {precision} | {len(group)} | {shown} | {single.recipe} | {names} | {gain:.1%} |"


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("search", type=Path)
    found = json.loads(parser.parse_args().search.read_text())
    print("| depth | precision | candidates | chunks + tokens × sequences | best single | best pair | gain |")
    print("|---|---|--:|---|---|---|--:|")
    for row in rows(candidates(found.get("search", found))):
        print(row)


if __name__ == "__main__":
    main()
