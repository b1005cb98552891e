"""Makes `import torchaudio` work beside a torch without CUDA.

torchaudio's wheels on PyPI hold extensions that are linked against CUDA's libraries, and its import fails where they are
not. XTTS needs only the part that is plain Python, so beside a CPU build of torch the extensions are removed. Run it with
the interpreter whose packages are meant; it changes nothing where CUDA is, or where nothing is wrong.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path


def main() -> int:
    found = importlib.util.find_spec("torchaudio")
    if found is None or found.origin is None or importlib.util.find_spec("torch") is None:
        return 0
    facts = [sys.executable, "-c", "import torch; print(torch.version.cuda)"]
    if subprocess.run(facts, capture_output=True, text=True, check=True).stdout.strip() != "None":
        return 0
    if subprocess.run([sys.executable, "-c", "import torchaudio"], capture_output=True, check=False).returncode == 0:
        return 0
    removed = list((Path(found.origin).parent / "lib").glob("*.so"))
    for path in removed:
        path.unlink()
    print(f"torchaudio: {len(removed)} extensions for CUDA removed, for torch has no CUDA here")
    return subprocess.run([sys.executable, "-c", "import torchaudio"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
