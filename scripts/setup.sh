#!/usr/bin/env bash
# Puts in place what the project needs: system packages, and .venv with the locked Python packages and the project.
#
#   scripts/setup.sh [run|studio|test]
#     run      what a dub with the draft engines needs (default)
#     studio   that, and the studio engines (torch, coqui-tts, ...: .venv then holds 3 GB, and CUDA comes on top)
#     test     run, and what the tests need, the studio engines on a torch without CUDA among them
#
# Running it again is quick: Python packages are kept until a lock, pyproject.toml or this script changes.
# Exit codes: 0 ready, 2 usage, 4 this machine lacks something (the message says what to type).
set -euo pipefail

group=${1:-run}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
logs=$root/.setup
export DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { printf 'setup: %s\n' "$*"; }
fail() { # fail MESSAGE...: one line each, on stderr
  printf 'setup: %s\n' "$@" >&2
  exit 4
}

case $group in
  run | studio) lock=requirements/base.txt ;;
  test) lock=requirements/dev.txt ;;
  *)
    echo "usage: scripts/setup.sh [run|studio|test]" >&2
    exit 2
    ;;
esac

# --- system packages ----------------------------------------------------------------------------------------------

has() { command -v "$1" >/dev/null 2>&1; }
translates() { has apertium && [[ $(apertium -l 2>/dev/null) =~ (^|[[:space:]])$1($|[[:space:]]) ]]; }

missing_packages() {
  has make || echo make
  { has ffmpeg && has ffprobe; } || echo ffmpeg
  has espeak-ng || echo espeak-ng
  has flite || echo flite
  has apertium || echo apertium
  translates eng-spa || echo apertium-eng-spa
  translates eng-cat || echo apertium-eng-cat
  if [ "$group" = test ]; then
    has redis-server || echo redis-server
    has chromium || has chromium-browser || echo chromium
    # only in CI: elsewhere its tests are skipped, for the package would leave a server running
    [ -z "${CI:-}" ] || has initdb || has pg_ctlcluster || echo postgresql
  fi
}

sudo=()
may_install() { # whether apt-get can be run from here without asking anybody
  has apt-get || return 1
  [ "$(id -u)" = 0 ] && return 0
  has sudo && sudo -n true 2>/dev/null && sudo=(sudo -n --preserve-env=DEBIAN_FRONTEND)
}

apt_install() {
  local options=(-y --no-install-recommends -o DPkg::Lock::Timeout=120)
  # package lists are fetched only when the ones at hand do not do: a fresh machine has none, an old one has stale ones
  "${sudo[@]}" apt-get install "${options[@]}" "$@" ||
    { "${sudo[@]}" apt-get update && "${sudo[@]}" apt-get install "${options[@]}" "$@"; }
}

ask_administrator() {
  if has apt-get; then
    fail "these system packages are missing, and installing them needs an administrator. Please type:" \
      "  sudo apt-get update && sudo apt-get install -y --no-install-recommends $*" "then run this again."
  fi
  fail "these programs are missing, and there is no apt-get here: $*" \
    "Install them with this system's package manager (the names are Debian's), then run this again."
}

# --- Python -------------------------------------------------------------------------------------------------------

suitable() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python3.10; do
    if has "$candidate" && suitable "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  fail "Python 3.10, 3.11, 3.12 or 3.13 is needed; found $(python3 --version 2>/dev/null || echo none)." \
    "Install one (Debian and Ubuntu: sudo apt-get install -y python3 python3-venv), or name it: PYTHON=/path/to/python3.12 make demo"
}

fingerprint() { # changes whenever .venv has to be filled anew; the folder counts, for a venv cannot be moved
  { echo "$root"; cat "$root"/requirements/*.txt "$root/pyproject.toml" "$root/scripts/setup.sh"; } | sha256sum | cut -d' ' -f1
}

python_is_ready() { # the test packages include those of a run, and so do those of the studio
  local stamp want others=()
  want=$(fingerprint)
  [ "$group" != run ] || others=("$venv/.ready-test" "$venv/.ready-studio")
  for stamp in "$venv/.ready-$group" "${others[@]}"; do
    [ -x "$venv/bin/dub" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && return
  done
  return 1
}

make_venv() { # make_venv PYTHON
  if [ -x "$venv/bin/python" ] && suitable "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1 &&
    [ "$("$venv/bin/python" -c 'import sys; print(sys.prefix)')" = "$venv" ]; then
    return
  fi
  say "making .venv with $("$1" --version)"
  "$1" -m venv --clear "$venv"
}

watch() { # watch LOG TOTAL: a line every 10 s while pip works, until killed or this script is gone
  local seconds=0
  while sleep 1 && kill -0 $$ 2>/dev/null; do
    seconds=$((seconds + 1))
    [ $((seconds % 10)) = 0 ] || continue
    if grep -q '^Installing collected' "$1"; then
      say "  unpacking the Python packages ($seconds s)"
    else
      say "  $(grep -c '^Collecting' "$1" || true) of about $2 Python packages fetched ($seconds s)"
    fi
  done
}

pip() { "$venv/bin/python" -m pip "$@"; }

install_python_packages() {
  local log=$logs/pip.log watcher status=0
  say "installing the Python packages of $lock"
  : >"$log"
  watch "$log" "$(grep -cE '^[a-z0-9._-]+==' "$root/$lock")" &
  watcher=$!
  # the lock names every package; what it leaves out (torch, in that of the tests) is not to be looked for
  pip install --no-compile --no-deps --progress-bar off --require-hashes -r "$root/$lock" >>"$log" 2>&1 || status=$?
  kill "$watcher" 2>/dev/null || true
  if [ "$status" != 0 ]; then
    tail -n 15 "$log" >&2
    fail "pip could not install $lock; its own words are above, all of them in $log"
  fi
  case $group in
    test) install_torch_for_tests "$log" ;;
    studio) install_studio "$log" ;;
  esac
  # pip compiles on one core; without byte code the first start of Ray takes 20 s instead of 5
  say "compiling them"
  "$venv/bin/python" -m compileall -q -j 0 "$venv/lib" >"$logs/compile.log" 2>&1 || true # packages ship templates that are no Python
  # no build isolation: setuptools comes from the lock, so that nothing is fetched here
  pip install -q --no-deps --no-build-isolation -e "$root" >>"$log" 2>&1 ||
    { tail -n 15 "$log" >&2; fail "pip could not install the project itself; its own words are above"; }
  fingerprint >"$venv/.ready-$group"
}

install_torch_for_tests() { # install_torch_for_tests LOG
  local file=$root/requirements/torch-cpu.txt
  say "installing torch for tests"
  # first from the indexes this machine uses: a mirror may have the CPU build, and then nothing else need be reachable
  pip install --no-compile --no-deps --progress-bar off -r "$file" >>"$1" 2>&1 ||
    pip install --no-compile --no-deps --progress-bar off --retries 1 --timeout 20 \
      --extra-index-url https://download.pytorch.org/whl/cpu -r "$file" >>"$1" 2>&1 || {
    [ -z "${CI:-}" ] || { tail -n 15 "$1" >&2; fail "pip could not install requirements/torch-cpu.txt; its own words are above"; }
    say "no torch without CUDA could be had (see $1): tests of the studio engines will be skipped"
    return
  }
  "$venv/bin/python" "$root/scripts/repair_torchaudio.py"
}

install_studio() { # install_studio LOG
  say "installing the studio engines"
  pip install --no-compile --progress-bar off --no-build-isolation -c "$root/requirements/constraints.txt" \
    -e "$root[studio]" >>"$1" 2>&1 ||
    { tail -n 15 "$1" >&2; fail "pip could not install the studio engines; its own words are above, all of them in $1"; }
  "$venv/bin/python" "$root/scripts/repair_torchaudio.py"
}

# --- the order of things ------------------------------------------------------------------------------------------

main() {
  local began=$SECONDS python packages apt_pid=
  mkdir -p "$logs"
  trap wait EXIT # apt-get is not to be left half-way
  python=$(find_python)
  mapfile -t packages < <(missing_packages)
  if ! python_is_ready && ! "$python" -c 'import ensurepip' 2>/dev/null; then
    packages+=("$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')")
  fi
  if [ ${#packages[@]} -gt 0 ]; then
    may_install || ask_administrator "${packages[@]}"
    say "installing system packages: ${packages[*]}"
    apt_install "${packages[@]}" >"$logs/apt.log" 2>&1 </dev/null &
    apt_pid=$!
    case ${packages[*]} in *-venv) wait_for_apt "$apt_pid" && apt_pid= ;; esac
  fi
  if ! python_is_ready; then
    make_venv "$python"
    install_python_packages
  fi
  if [ -n "$apt_pid" ]; then
    wait_for_apt "$apt_pid"
  fi
  say "ready ($((SECONDS - began)) s)"
}

wait_for_apt() { # wait_for_apt PID
  if kill -0 "$1" 2>/dev/null; then say "waiting for the system packages"; fi
  if ! wait "$1"; then
    tail -n 15 "$logs/apt.log" >&2
    fail "apt-get could not install the system packages; its own words are above, all of them in $logs/apt.log"
  fi
  mapfile -t packages < <(missing_packages)
  if [ ${#packages[@]} -gt 0 ]; then
    fail "apt-get went through, yet these are still not found: ${packages[*]}"
  fi
}

main
