"""Writes the requirements of pyproject.toml as files: one for the core and one for each extra.

Dependencies then have image layers of their own, built again only when they change and not with every line of code.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def main(project_file: Path, folder: Path) -> None:
    """Writes core.txt and <extra>.txt into `folder`."""
    project = tomllib.loads(project_file.read_text())["project"]
    lists = {"core": project["dependencies"], **project["optional-dependencies"]}
    folder.mkdir(parents=True, exist_ok=True)
    for name, requirements in lists.items():
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in requirements))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
