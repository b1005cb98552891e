#!/usr/bin/env bash
# Resolves requirements/base.txt and requirements/dev.txt anew: exact versions and hashes for Python 3.10 to 3.13.
# Versions in the present locks are kept where they still fit; --upgrade takes the newest ones.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

resolve() { # resolve OUTPUT [OPTION...]
  uv pip compile pyproject.toml requirements/lock.in --universal --python-version 3.10 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-annotate --no-header -q -o "$@"
}

resolve requirements/base.txt "$@"
# with the studio engines, whose tests run on tiny models; torch itself is left to requirements/torch-cpu.txt
grep -v '^torch' requirements/constraints.txt | resolve requirements/dev.txt --extra dev --extra studio -c - \
  --overrides requirements/torch-none.txt --no-emit-package torch --no-emit-package torchaudio \
  --no-emit-package torchcodec requirements/torch-needs.in "$@"
