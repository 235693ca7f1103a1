"""Generates the Python of every .proto under proto/ into the tree, or checks that what is committed is fresh.

python scripts/generate_protos.py            writes tradewind/**/*_pb2*.py
python scripts/generate_protos.py --check    exits 1 and names the stale files
"""

from __future__ import annotations

import argparse
import filecmp
import pathlib
import shutil
import sys
import tempfile

from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"


def generate(out: pathlib.Path) -> list[pathlib.Path]:
    """Writes generated files below `out`; returns their paths relative to it."""
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    well_known = pathlib.Path(protoc.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{PROTO}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}"]
    arguments += [f"--mypy_out={out}", f"--mypy_grpc_out={out}"]
    if protoc.main([*arguments, *sources]) != 0:
        sys.exit("protoc failed; its message stands above")
    return sorted(path.relative_to(out) for path in out.rglob("*_pb2*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when something is stale")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        fresh = generate(pathlib.Path(folder))
        stale = [p for p in fresh if not same(pathlib.Path(folder) / p, ROOT / p)]
        if check and stale:
            sys.exit("stale, run `make proto`: " + ", ".join(map(str, stale)))
        for path in stale:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(pathlib.Path(folder) / path, ROOT / path)
            print("wrote", path)


def same(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Whether both files exist with the same bytes."""
    return other.exists() and filecmp.cmp(one, other, shallow=False)


if __name__ == "__main__":
    main()
