#!/usr/bin/env python3
"""Check that the tree holds no left-over product names and no versioned module names; one verdict line, exit 0 or 1.

    scripts/verify_no_anime_or_versions.py [FOLDER]

There is one product with one name, and a module is replaced, never kept beside its successor.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

OWN_NAME = Path(__file__).stem
OLD_PRODUCT = re.compile("(?<![a-z])an" + "ime", re.IGNORECASE)
VERSIONED = re.compile(r"_(v\d+|legacy|old|new|impl)$", re.IGNORECASE)
NOT_SOURCE = {"Output", "logs", "build", "dist", "__pycache__", "node_modules"}
LARGEST_TEXT = 2_000_000


def files(root: Path) -> Iterator[Path]:
    for folder, names, found in os.walk(root):
        names[:] = [n for n in names if not n.startswith(".") and n not in NOT_SOURCE and not n.endswith(".egg-info")]
        yield from (Path(folder) / name for name in found)


def findings(root: Path) -> Iterator[str]:
    for path in files(root):
        name = path.relative_to(root).as_posix()
        if OLD_PRODUCT.search(name.replace(OWN_NAME, "")):
            yield f"{name}: an old product's name in the file name"
        if path.suffix == ".py" and any(VERSIONED.search(part) for part in Path(name).with_suffix("").parts):
            yield f"{name}: a versioned module name"
        if path.is_symlink() or path.stat().st_size > LARGEST_TEXT:
            continue
        lines = path.read_bytes().decode("utf-8", "replace").replace(OWN_NAME, "").splitlines()
        for number, line in enumerate(lines, 1):
            if OLD_PRODUCT.search(line):
                yield f"{name}:{number}: an old product's name"


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    found = list(findings(root))
    for finding in found:
        print(finding, file=sys.stderr)
    print(f"names: {'FAIL, ' + str(len(found)) + ' findings' if found else 'PASS'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
