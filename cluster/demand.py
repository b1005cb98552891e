"""Tells Ray's autoscaler how many job slots are wanted. Jobs wait in our queue, so by itself it would see no demand."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError

from cluster.coordinator import COORDINATOR_CPUS
from dubbing.errors import StoreError

log = logging.getLogger(__name__)
PERIOD_S = 5.0
BUNDLE = {"job_slot": 1, "CPU": COORDINATOR_CPUS}
"""What a coordinator takes."""
MAX_BUNDLES = 1000
"""A backlog may be longer than any cluster is wide."""
END_S = 10.0


class DemandReporter:
    """Asks for slots every few seconds, in a thread of its own: neither Ray nor the database may hold up the other.

    A request replaces the last one and stays until the next, also when whoever made it has died. So there must be one
    reporter in a cluster, which there is where one dispatcher runs.
    """

    def __init__(self, wanted: Callable[[], int], *, period_s: float = PERIOD_S) -> None:
        """`wanted` answers the number of slots; it may raise StoreError."""
        self._wanted, self._period_s = wanted, period_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demand", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, and want nothing any more."""
        self._stopping.set()
        self._thread.join(END_S)
        _request(0)

    def _run(self) -> None:
        while True:
            try:
                _request(self._wanted())
            except StoreError as error:
                log.warning("%s", error.message)
            if self._stopping.wait(self._period_s):
                return


def _request(slots: int) -> None:
    try:
        request_resources(bundles=[BUNDLE] * min(slots, MAX_BUNDLES))
    except RayError as error:
        log.warning("Ray was not told how many slots are wanted: %s", error)
