"""The scripts an operator runs to see that the queue works here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import redis

from dubbing.queue.base import Ticket
from dubbing.queue.redis_queue import RedisQueue
from tests.services import RedisServer

ROOT = Path(__file__).parents[2]


def run(script: str, *arguments: str, **env: str) -> tuple[int, list[str]]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("DUBBING_", "REDIS_", "QUEUE_"))}
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), *arguments],
        env={**clean, "PYTHONPATH": str(ROOT), **env}, capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    return done.returncode, done.stdout.splitlines()


def test_the_verifier_of_the_sqlite_queue_prints_one_verdict() -> None:
    code, lines = run("verify_queue_fallback.py")
    assert (code, len(lines)) == (0, 1)
    assert lines[0].startswith("OK: the SQLite queue ran 20 jobs")


def test_the_verifier_of_the_redis_queue_uses_redis_url_and_leaves_no_key(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.flushall()
        code, lines = run("verify_queue_redis.py", REDIS_URL=redis_server.url)
        assert (code, len(lines)) == (0, 1)
        assert lines[0].startswith("OK: the queue over the Redis of REDIS_URL")
        assert client.dbsize() == 0


def test_the_verifier_of_the_redis_queue_fails_when_redis_url_leads_nowhere() -> None:
    code, lines = run("verify_queue_redis.py", REDIS_URL="redis://127.0.0.1:1/0")
    assert (code, len(lines)) == (1, 1)
    assert lines[0].startswith("FAIL:")


def test_the_settings_are_shown_without_passwords() -> None:
    code, lines = run(
        "show_config.py",
        "--no-env-file",
        "--no-secrets-file",
        REDIS_URL="redis://:hunter2@cache:6379/0",
        DUBBING_DATABASE_URL="postgresql://me:hunter2@db/jobs?password=hunter2",
    )
    assert code == 0
    assert "REDIS_URL=redis://:***@cache:6379/0  (set)" in lines
    assert "DUBBING_DATABASE_URL=postgresql://me:***@db/jobs?***  (set)" in lines
    assert "QUEUE_MODE=auto  (default)" in lines
    assert lines[-1].startswith("OK:")
    assert not any("hunter2" in line for line in lines)


def test_a_wrong_setting_is_named_and_fails() -> None:
    code, lines = run("show_config.py", "--no-env-file", QUEUE_MODE="rabbit")
    assert code == 1
    assert "QUEUE_MODE" in lines[-1]


def test_a_claim_among_twenty_thousand_jobs_of_capped_users_takes_as_many_commands_as_among_a_hundred(
    redis_server: RedisServer,
) -> None:
    def commands(jobs: int) -> float:
        queue = RedisQueue(redis_server.url, namespace=f"cost{jobs}")
        queue.begin_rebuild()
        for user in range(20, 1_000):
            queue.configure("user", f"u{user}", "cap", 0)
        for start in range(0, jobs, 1_000):
            numbers = range(start, min(start + 1_000, jobs))
            queue.enqueue([Ticket(f"j{n}", f"u{n % 1_000}", "gpu", n % 10, n) for n in numbers])
        queue.end_rebuild(0)
        with redis_server.client() as client:
            client.config_resetstat()
            for _ in range(50):
                (claim,) = queue.claim("gpu", 1, owner="d", ttl_ms=60_000).claims
                queue.requeue(claim.job_id, claim.token, epoch=claim.token, run_at_ms=0)
            calls = _calls(client)
        queue.close()
        return calls / 50

    assert commands(20_000) <= 1.5 * commands(100)


def _calls(client: redis.Redis) -> int:
    return sum(int(stat["calls"]) for stat in client.info("commandstats").values())  # type: ignore[union-attr]
