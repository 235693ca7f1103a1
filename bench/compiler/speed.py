"""Times every function of the variants in a compiler's state folder, in one process, one after the other.

    python -m bench.compiler.speed STATE_DIR [--calls 20]

Prints the fastest and the median call of each function, tokens a second of the fastest, and resident memory. Figures
of two runs on a shared machine differ by a factor of two: compare inside one run only.
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from services.compiler.quality.session import Session
from tradewind.domain.manifest import Function, VariantManifest


def manifests(state_dir: Path) -> list[VariantManifest]:
    """Manifests of all variants that the state folder indexes."""
    found = []
    for path in sorted((state_dir / "index" / "variants").glob("*.json")):
        digest = json.loads(path.read_text())["manifest"]["digest"]
        envelope = json.loads(blob(state_dir, digest).read_bytes())
        found.append(VariantManifest.from_bytes(base64.b64decode(envelope["payload"])))
    return found


def blob(state_dir: Path, digest: str) -> Path:
    """Where a blob lies."""
    name = digest.removeprefix("sha256:")
    return state_dir / "blobs" / "sha256" / name[:2] / name


def time_function(session: Session, function: Function, calls: int) -> list[float]:
    """Seconds of each call, the first two left out."""
    spent = []
    for _ in range(calls + 2):
        began = time.perf_counter()
        if function.phase == "prefill":
            session.prefill(function, [5] * function.tokens, 0, 0)
        else:
            session.decode(function, [5] * function.batch, [min(100, function.context - 1)] * function.batch)
        spent.append(time.perf_counter() - began)
    return spent[2:]


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state_dir", type=Path)
    parser.add_argument("--calls", type=int, default=20)
    arguments = parser.parse_args()
    for manifest in manifests(arguments.state_dir):
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "weights.irpa"
            weights.symlink_to(blob(arguments.state_dir, manifest.weights[0].digest).resolve())
            module = blob(arguments.state_dir, manifest.module.digest)
            session = Session(module, [weights], manifest.functions, manifest.driver)
            print(f"{manifest.recipe.name} on {manifest.compiled_target}, load average {psutil.getloadavg()[0]:.1f}")
            for function in manifest.functions:
                spent = time_function(session, function, arguments.calls)
                rate = function.tokens * function.batch / min(spent)
                middle = statistics.median(spent)
                print(f"  {function.name:22} {min(spent) * 1e3:8.1f} {middle * 1e3:8.1f} ms {rate:8.0f} tokens/s")
            print(f"  resident {psutil.Process().memory_info().rss >> 20} MiB")


if __name__ == "__main__":
    main()
