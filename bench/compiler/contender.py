"""One contender in a process of its own: says which cases it takes, then times one whenever a line names it.

python -m bench.compiler.contender KIND PATH [RECIPE]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bench.compiler.cases import CASES


def contender(kind: str, path: Path, recipe: str) -> Any:
    """The contender, loaded."""
    if kind == "llama.cpp":
        from bench.compiler.llama_cpp import LlamaCpp

        return LlamaCpp(path)
    if kind == "pytorch":
        from bench.compiler.pytorch import PyTorch

        dtype, _, how = recipe.partition("-")
        return PyTorch(path, dtype, how == "compile")
    from bench.compiler.ours import Ours

    return Ours(path, recipe)


def main(arguments: list[str]) -> None:
    """Runs until its input ends."""
    kind, path, recipe = (*arguments, "")[:3]
    # llama.cpp and PyTorch write to standard output, which is the parent's.
    out, sys.stdout = sys.stdout, sys.stderr
    running = contender(kind, Path(path), recipe)
    taken = {case.name: case for case in CASES if running.takes(case)}
    print(json.dumps(list(taken)), file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(running.run(taken[json.loads(line)])), file=out, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
