#!/usr/bin/env bash
# Resolves requirements/*.txt anew: exact versions and hashes. base and dev are for Python 3.10 to 3.13; the images of
# docker/Dockerfile take server (base and PostgreSQL) and gpu (all engines, for the Python of the CUDA image alone).
# Versions in the present locks are kept where they still fit; --upgrade takes the newest ones.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

lock() { # lock OUTPUT OPTION...
  uv pip compile pyproject.toml requirements/lock.in --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-annotate --no-header -q -o "$@"
}
resolve() { # resolve OUTPUT [OPTION...]
  lock "$@" --universal --python-version 3.10
}

resolve requirements/base.txt "$@"
# with the studio engines, whose tests run on tiny models; torch itself is left to requirements/torch-cpu.txt
grep -v '^torch' requirements/constraints.txt | resolve requirements/dev.txt --extra dev --extra studio -c - \
  --overrides requirements/torch-none.txt --no-emit-package torch --no-emit-package torchaudio \
  --no-emit-package torchcodec requirements/torch-needs.in "$@"
resolve requirements/server.txt --extra postgres -c requirements/base.txt "$@"
# no --universal: demucs and its relatives have no common answer for all systems
lock requirements/gpu.txt --extra postgres --extra studio -c requirements/server.txt \
  -c requirements/constraints.txt --python-version 3.12 --python-platform x86_64-manylinux_2_28 "$@"
