#!/usr/bin/env bash
# Start Ray on a node of its own: start.sh head [OPTION...] | start.sh worker [OPTION...], options as of `ray start`.
# Workers find the head by RAY_HEAD_IP. DUBBING_RAY names another ray program.
set -euo pipefail
role=${1:?head or worker}
shift
project=$(cd "$(dirname "$0")/../.." && pwd)
ray=${DUBBING_RAY:-$project/.venv/bin/ray}
shared=${DUBBING_SHARED:-/mnt/dubbing}

# Only who has the token in ~/.ray/auth_token may talk to this Ray.
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
[ -s "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}" ] || { echo "There is no token: ray get-auth-token --generate" >&2; exit 4; }
# Replicas and coordinators inherit these.
export DUBBING_OUTPUT_DIR=${DUBBING_OUTPUT_DIR:-$shared/Output} DUBBING_MODELS_DIR=${DUBBING_MODELS_DIR:-$shared/models}
export DUBBING_LOG_DIR=${DUBBING_LOG_DIR:-$shared/logs} PYTHONPATH=$project${PYTHONPATH:+:$PYTHONPATH}
ulimit -n 65536 2>/dev/null || true

# This ends every Ray on the machine, which therefore must be a node of this cluster alone.
"$ray" stop
if [ "$role" = head ]; then
  exec "$ray" start --head --port=6379 --num-cpus=0 --dashboard-host=127.0.0.1 --labels=dubbing/pool=head "$@"
fi
options=()
# Where the autoscaler starts nodes, it says itself what they have.
if [ -z "${RAY_OVERRIDE_RESOURCES:-}" ]; then
  if nvidia-smi -L >/dev/null 2>&1; then
    options=(--labels=dubbing/pool=gpu)
  else
    options=(--labels=dubbing/pool=cpu "--resources={\"job_slot\": $(($(nproc) / 2 > 0 ? $(nproc) / 2 : 1))}")
  fi
fi
exec "$ray" start "--address=${RAY_HEAD_IP:?address of the head}:6379" "${options[@]}" "$@"
