"""Faults put into the scripts one at a time: the random walks of test_queue_machine.py find each of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from test_queue_machine import QueueMachine

from dubbing.queue import redis_queue
from dubbing.queue_errors import QueueDownError
from tests.services import RedisServer

pytestmark = pytest.mark.timeout(1200)
CHAOS = os.environ.get("DUBBING_TEST_CHAOS") == "1"
FAULTS = {
    "a user may run one more than his cap": ("lib", "< cap", "<= cap"),
    "a user's pause is not obeyed": ("lib", "if set[his .. ':paused'] == 1 then return false end", ""),
    "numbers in line are compared as words": ("lib", "|%02d|%016d|", "|%02d|%d|"),
    "a job keeps the band it was lifted to": ("lib", "job.band = job.base", ""),
    "a token is given out twice": ("claim", "lease(id, job, job.epoch + 1,", "lease(id, job, job.epoch,"),
    "a started job stays in line": ("claim", "out_of_line(id, job)", ""),
    "a user keeps his turn": ("claim", "start + turn", "start"),
    "who was away has saved turns up": ("claim", "math.max(at[pool_clock] or 0, at[his_clock] or 0)", "at[his_clock] or 0"),
    "a user at his cap stays in line": ("claim", "refresh(user)", ""),
    "slots of a pool are not counted": ("claim", ", set[this .. ':slots']}", "}"),
    "the cap of the whole is not counted": ("claim", "if whole then", "if false then"),
    "a pause of a pool is not obeyed": ("claim", " or set[this .. ':paused'] == 1", ""),
    "weights count for nothing": ("claim", " / (settings(weight)[weight] or 1)", ""),
    "anybody may end a job": ("release", "holder and holder.token == token", "holder"),
    "an end brings nobody back into line": ("release", "refresh(job.user)", ""),
    "anybody may put a job back": ("requeue", "or holder.token ~= args.token", ""),
    "a job put back still runs": ("requeue", "unlease(args.id, job)", ""),
    "an old token renews": ("extend", "holder.token ~= token", "false"),
    "a runner is not told to cancel": ("extend", "holder.cancel and 2 or 1", "1"),
    "a cancelled job stays in line": ("cancel", "out_of_line(args.id, job)", ""),
    "a cancel leaves its user in line": ("cancel", "refresh(job.user)", ""),
    "the grace after a restart is not kept": ("expired", "if now >= ", "if now >= 0 * "),
    "an expired lease is told to all at once": ("expired", "now + args.hold", "now"),
    "a known lease is installed again": ("adopt", "newest >= running.token", "newest > running.token"),
    "an adopted job stays in line": ("adopt", "else out_of_line(id, known) end", "end"),
    "a lifted job keeps its band": ("age", "put_job(id, job)", ""),
    "a lift does not move its user": ("age", "refresh(job.user)", ""),
    "a running job is put in line": ("enqueue", "if known and call('ZSCORE', KEY.lease, id) then", "if false then"),
    "an older epoch replaces a newer one": ("enqueue", "known.epoch > job.epoch", "false"),
    "a cap for all moves nobody": ("configure", "      refresh(user)\n", ""),
}  # fmt: skip
QUICK = ("a user may run one more than his cap", "a token is given out twice", "anybody may end a job")


class OverRedis(QueueMachine):
    """The walk without the queue in SQLite, which has other code."""

    def __init__(self) -> None:
        super().__init__()
        self.real.pop(0).close()


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the scripts, which the queue uses in their place."""
    monkeypatch.setattr(redis_queue, "LUA", Path(shutil.copytree(redis_queue.LUA, tmp_path / "lua")))
    redis_queue._script.cache_clear()
    yield tmp_path / "lua"
    redis_queue._script.cache_clear()


@pytest.mark.parametrize("fault", FAULTS if CHAOS else QUICK)
def test_a_fault_in_a_script_is_found(fault: str, scripts: Path, redis_server: RedisServer) -> None:
    name, right, wrong = FAULTS[fault]
    script = scripts / f"{name}.lua"
    text = script.read_text()
    assert right in text, "the fault is about a script of old"
    script.write_text(text.replace(right, wrong))
    OverRedis.url = redis_server.url
    with pytest.raises((AssertionError, QueueDownError)) as found:
        run_state_machine_as_test(
            OverRedis,
            settings=settings(
                max_examples=1_000,
                stateful_step_count=40,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    assert found.type is AssertionError or "user_script" in str(found.value), "Redis itself did not answer"
