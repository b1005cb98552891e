"""Prove on this machine that the queue works without Redis. Prints one line; exit code 0 when it does, else 1."""

from __future__ import annotations

import sys
import tempfile

from queue_check import JOBS, USER_CAP, check

from dubbing import config
from dubbing.errors import DubbingError
from dubbing.queue.choose import choose_queue
from dubbing.queue.fallback_local_queue import LocalQueue
from dubbing.queue_errors import DispatcherHeldError


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="dub-verify-") as folder:
        settings = config.load({"QUEUE_MODE": "fallback", "DUBBING_STATE_DIR": folder}, None)
        choice = choose_queue(settings, now_ms=0)
        try:
            wrong = check(settings, choice) or second_dispatcher(settings)
        except DubbingError as error:
            wrong = error.message
        finally:
            choice.close()
    if wrong:
        print(f"FAIL: the SQLite queue does not work here: {wrong}")
        return 1
    print(f"OK: the SQLite queue ran {JOBS} jobs of two users, at most {USER_CAP} each at once, by priority.")
    return 0


def second_dispatcher(settings: config.Settings) -> str | None:
    """Two dispatchers over one SQLite queue must be impossible."""
    queues = [LocalQueue(settings.state / "other.sqlite3") for _ in range(2)]
    try:
        queues[0].lock.acquire("first")
        queues[1].lock.acquire("second")
    except DispatcherHeldError:
        return None
    finally:
        for queue in queues:
            queue.close()
    return "two dispatchers could take the same queue"


if __name__ == "__main__":
    sys.exit(main())
