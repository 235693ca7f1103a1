"""What each pass buys: one model built with all passes of a recipe, and again with one of them off or changed.

    python -m bench.compiler.passes build WORK_DIR [CASE…]    # minutes: exports and compiles everything, or these
    python -m bench.compiler.passes time WORK_DIR [CASE…]     # times it, prints a table, writes WORK_DIR/passes.json
    python -m bench.compiler.passes text WORK_DIR CASE        # prints the MLIR of a build, as the compiler gets it

The model is a Llama of SmolLM2-135M's widths and vocabulary with 2 layers and random weights. A round calls each
function of each build once; figures are medians and fastest calls. Prompts start at row 0, decode steps write row 100.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from bench.compiler.passes_cases import CASES, FUNCTIONS, LAYERS, SHAPES, Case, build_case
from bench.compiler.side_by_side import machine
from bench.compiler.turns import timed_in_turns
from services.compiler.quality.session import Session
from tradewind.domain.manifest import Function

ROUNDS: Final = 100
_ROW: Final = 100


def build(folder: Path, cases: Sequence[Case]) -> None:
    """Builds cases, each in a process of its own: a model is changed by what is made of it."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        if not (folder / f"{case.name}.vmfb").exists():
            subprocess.run([sys.executable, "-m", "bench.compiler.passes", "one", str(folder), case.name], check=True)


def mlir_text(path: Path) -> str:
    """What a file of MLIR bytecode says, without long constants."""
    from iree.compiler import ir

    with ir.Context():
        module = ir.Module.parse(path.read_bytes())
        return str(module.operation.get_asm(large_elements_limit=8, use_local_scope=True))


def time_all(folder: Path, cases: Sequence[Case]) -> None:
    """Times cases in turns."""
    calls = {(case.name, f.name): call for case in cases for f, call in _calls(folder, case)}
    samples = timed_in_turns(calls, ROUNDS)
    spent = {case.name: {f: _samples_ms(samples, case.name, f) for f in FUNCTIONS} for case in cases}
    medians = {name: {f: statistics.median(times) for f, times in of.items()} for name, of in spent.items()}
    fastest = {name: {f: min(times) for f, times in of.items()} for name, of in spent.items()}
    exports = {case.name: json.loads((folder / f"{case.name}.json").read_text()) for case in cases}
    result = {
        "machine": machine(),
        "layers": LAYERS,
        "rounds": ROUNDS,
        "median_ms": medians,
        "fastest_ms": fastest,
        "builds": exports,
    }
    (folder / "passes.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    print("| build: median (fastest), ms | " + " | ".join(FUNCTIONS) + " | export, s |")
    print("|---|" + "--:|" * (len(FUNCTIONS) + 1))
    for case in cases:
        cells = [f"{medians[case.name][f]:.1f} ({fastest[case.name][f]:.1f})" for f in FUNCTIONS]
        cells.append(f"{exports[case.name]['export_s']:.0f}")
        print(f"| {case.name} | " + " | ".join(cells) + " |")


def _samples_ms(samples: dict[tuple[str, str], list[float]], case: str, function: str) -> list[float]:
    """Of the function of a case that does this work."""
    (found,) = (spent for (name, of), spent in samples.items() if name == case and of.startswith(function + "_"))
    return [1e3 * one for one in found]


def _calls(folder: Path, case: Case) -> list[tuple[Function, Callable[[], Any]]]:
    """One call for each kind of work."""
    functions = list(case.shapes.functions)
    module, weights = folder / f"{case.name}.vmfb", folder / f"{case.name}.irpa"
    if case.caches_as_arguments:
        return _calls_with_caches(module, weights, functions)
    session = Session(module, [weights], functions, "local-task")
    calls: list[tuple[Function, Callable[[], Any]]] = []
    for f in functions:
        if f.phase == "prefill":
            calls.append((f, lambda f=f: session.prefill(f, [5] * f.tokens, 0, 0)))
        else:
            calls.append((f, lambda f=f: session.decode(f, [5] * f.batch, [_ROW] * f.batch)))
    return calls


def _calls_with_caches(
    module: Path, weights: Path, functions: list[Function]
) -> list[tuple[Function, Callable[[], Any]]]:
    import iree.runtime as rt
    import numpy as np

    config = rt.Config("local-task")
    index = rt.ParameterIndex()
    index.load(str(weights), mmap=True)
    parameters = rt.create_io_parameters_module(config.vm_instance, index.create_provider(scope="model"))
    loaded = rt.load_vm_modules(parameters, rt.VmModule.mmap(config.vm_instance, str(module)), config=config)[-1]
    cache = np.zeros((SHAPES.slots, SHAPES.cache_tokens, 3, 64), np.float32)
    caches = [rt.asdevicearray(config.device, cache.copy()) for _ in range(2 * LAYERS)]

    def call(f: Function) -> Callable[[], Any]:
        if f.phase == "prefill":
            one = np.ones(1, np.int64)
            given = [np.full((1, f.tokens), 5, np.int64), 0 * one, 0 * one, f.tokens * one]
        else:
            given = [np.full(f.batch, 5, np.int64), np.full(f.batch, _ROW, np.int64)]
        return lambda: loaded[f.name](*given, *caches).to_host()

    return [(f, call(f)) for f in functions]


def main() -> None:
    """Builds, times or shows."""
    what, folder, *names = sys.argv[1:]
    cases = [case for case in CASES if case.name in names or not names]
    if unknown := set(names) - {case.name for case in cases}:
        sys.exit(f"no case named {', '.join(sorted(unknown))}; there are {', '.join(case.name for case in CASES)}")
    if what == "build":
        build(Path(folder), cases)
    elif what == "one":
        build_case(cases[0], Path(folder))
    elif what == "text":
        print(mlir_text(Path(folder) / f"{cases[0].name}.mlir"))
    else:
        time_all(Path(folder), cases)


if __name__ == "__main__":
    main()
