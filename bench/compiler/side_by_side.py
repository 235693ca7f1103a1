"""Our variants, llama.cpp and PyTorch on the same weights, in turns: medians and ratios.

    pip install xllamacpp                                  # for this bench only
    python -m bench.compiler.side_by_side WORK_DIR MODEL.gguf [--recipes w4-kernels,w8-kernels] [--rounds 7] [--build]

With --build it only prepares (minutes): imports the model, builds the recipes in WORK_DIR/state, writes the Q8_0 file.
Without, it times what is prepared, prints a table and writes WORK_DIR/side-by-side.json. Every contender is a process
of its own that sleeps while it is not its turn; a round gives each contender each case once, after one call to warm up.
--no-llama-cpp leaves llama.cpp out, --pytorch "" PyTorch, and --cases "prefill 512,decode 1" all other cases: llama.cpp
reads eight prompts for eight streams, and PyTorch compiles for minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.compiler.cases import CASES, Case

Samples = dict[str, dict[str, list[float]]]
_OURS: Final = "ours "
_LLAMA: Final = "llama.cpp "
_TORCH: Final = "pytorch "
_PYTORCH: Final = ("float32-eager", "bfloat16-eager", "float32-compile", "bfloat16-compile")


class Contender:
    """The parent's end of a contender."""

    def __init__(self, arguments: list[str], wanted: Sequence[str]) -> None:
        """Starts it and waits until it is loaded; it takes those of the cases wanted that it can."""
        self._command = [sys.executable, "-m", "bench.compiler.contender", *arguments]
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.cases: list[str] = [case for case in self._read() if case in wanted]

    def time(self, case: Case) -> float:
        """Seconds of one sample."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(case.name) + "\n")
        self._process.stdin.flush()
        return float(self._read())

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._command} ended; run it alone to see why")
        return json.loads(line)


def prepare(folder: Path, source: Path, recipes: list[str]) -> None:
    """Builds what is timed."""
    from bench.compiler.llama_cpp import write_q8_0
    from bench.compiler.ours import build

    folder.mkdir(parents=True, exist_ok=True)
    built = build(folder / "state", source, recipes)
    (folder / "variants.json").write_text(json.dumps(built, indent=1), encoding="utf-8")
    if not (folder / "q8_0.gguf").exists():
        write_q8_0(source, folder / "q8_0.gguf")


@contextmanager
def contenders(
    folder: Path, source: Path, pytorch: list[str], llama_cpp: bool, cases: Sequence[str]
) -> Iterator[dict[str, Contender]]:
    """Ours, and of the others those that are wanted, by name."""
    variants = json.loads((folder / "variants.json").read_text(encoding="utf-8"))
    wanted = {_OURS + v["recipe"]: ["ours", str(folder / "state"), v["variant_id"]] for v in variants}
    if llama_cpp:
        wanted[_LLAMA + "as shipped"] = ["llama.cpp", str(source)]
        wanted[_LLAMA + "Q8_0"] = ["llama.cpp", str(folder / "q8_0.gguf")]
    wanted |= {_TORCH + how: ["pytorch", str(source), how] for how in pytorch}
    running: dict[str, Contender] = {}
    try:
        for name, arguments in wanted.items():
            running[name] = Contender(arguments, cases)
        yield running
    finally:
        for contender in running.values():
            contender.close()


def measure(running: dict[str, Contender], rounds: int) -> Samples:
    """Tokens a second of every sample, round by round."""
    samples: Samples = {name: {case: [] for case in contender.cases} for name, contender in running.items()}
    for turn in range(rounds + 1):
        for case in CASES:
            for name, contender in running.items():
                if case.name in contender.cases:
                    rate = case.tokens_made / contender.time(case)
                    # The first round warms up.
                    if turn:
                        samples[name][case.name].append(rate)
    return samples


def best(samples: Samples, kind: str, case: str) -> float:
    """The largest median among contenders of a kind; nan when none takes the case."""
    medians = [
        statistics.median(cases[case]) for name, cases in samples.items() if name.startswith(kind) and cases.get(case)
    ]
    return max(medians, default=float("nan"))


def table(samples: Samples) -> list[str]:
    """Medians, fastest samples, and our best against each other kind's best."""
    timed = [case for case in CASES if any(cases.get(case.name) for cases in samples.values())]
    lines = ["| tokens/s: median (fastest) | " + " | ".join(case.name for case in timed) + " |"]
    lines.append("|---|" + "--:|" * len(timed))
    for name, cases in samples.items():
        cells = [
            f"{statistics.median(cases[c.name]):.0f} ({max(cases[c.name]):.0f})" if cases.get(c.name) else ""
            for c in timed
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for kind in (k for k in (_LLAMA, _TORCH) if any(name.startswith(k) for name in samples)):
        ratios = [best(samples, _OURS, c.name) / best(samples, kind, c.name) for c in timed]
        lines.append(f"| **best of ours / best of {kind.strip()}** | " + " | ".join(f"{r:.2f}" for r in ratios) + " |")
    single = best(samples, _OURS, "decode 1")
    batches = " | ".join(f"{best(samples, _OURS, c.name) / single:.2f}" if c.batch > 1 else "" for c in timed)
    return [*lines, f"| **ours, batch / single stream** | {batches} |"]


def machine() -> dict[str, Any]:
    """Where and of what this was measured."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    model = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("cpu family", "model"))
    ]
    return {
        "cpu": [" ".join(line.split()) for line in model[:3]],
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "commit": commit,
    }


def main() -> None:
    """Prepares or measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--recipes", default="w4-kernels")
    parser.add_argument("--pytorch", default=",".join(_PYTORCH))
    parser.add_argument("--llama-cpp", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--cases", default=",".join(case.name for case in CASES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--build", action="store_true")
    arguments = parser.parse_args()
    cases = arguments.cases.split(",")
    if unknown := set(cases) - {case.name for case in CASES}:
        parser.error(f"no case named {', '.join(sorted(unknown))}; there are {', '.join(c.name for c in CASES)}")
    if arguments.build:
        prepare(arguments.work_dir, arguments.model, arguments.recipes.split(","))
        return
    started = machine()
    pytorch = [p for p in arguments.pytorch.split(",") if p]
    with contenders(arguments.work_dir, arguments.model, pytorch, arguments.llama_cpp, cases) as running:
        samples = measure(running, arguments.rounds)
    variants = json.loads((arguments.work_dir / "variants.json").read_text(encoding="utf-8"))
    result = {"machine": started, "variants": variants, "tokens_per_s": samples, "rounds": arguments.rounds}
    (arguments.work_dir / "side-by-side.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    print("\n".join(table(samples)))


if __name__ == "__main__":
    main()
