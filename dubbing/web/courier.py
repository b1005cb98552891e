"""Brings webhooks their messages: signed, retried with growing waits, and remembered across restarts (store/webhooks.py)."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time

from dubbing import __version__
from dubbing.errors import DubbingError, StoreError
from dubbing.store import Store
from dubbing.store.webhooks import Delivery
from dubbing.web import outbound

LOOK_S = 1.0
AT_ONCE = 8
"""Messages under way at the same time; each has outbound.DEADLINE_S."""
log = logging.getLogger(__name__)


def signature(secret: str, body: str, at_s: int) -> str:
    """`t=...,v1=...`: HMAC-SHA256 over the time, a dot and the body, so that an old message cannot be sent again as new."""
    mac = hmac.new(secret.encode(), f"{at_s}.{body}".encode(), hashlib.sha256)
    return f"t={at_s},v1={mac.hexdigest()}"


async def carry(store: Store, look_s: float = LOOK_S) -> None:
    """Send what is due, until cancelled."""
    while True:
        try:
            sent = await round_(store)
        except StoreError as error:
            log.warning("webhooks wait for the database: %s", error.message)
            sent = 0
        if sent < AT_ONCE:
            await asyncio.sleep(look_s)


async def round_(store: Store) -> int:
    """Send what is due now; how many messages that was. Raises StoreError."""
    due = await asyncio.to_thread(store.take_deliveries, AT_ONCE)
    await asyncio.gather(*(_send(store, delivery) for delivery in due))
    return len(due)


async def _send(store: Store, delivery: Delivery) -> None:
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"dubbing-pipeline/{__version__}",
        "X-Dubbing-Delivery": delivery.id,
        "X-Dubbing-Signature": signature(delivery.secret, delivery.body, int(time.time())),
    }
    try:
        status = await outbound.post(delivery.url, delivery.body.encode(), headers, private=delivery.trusted)
    except (DubbingError, OSError) as error:
        log.info("webhook delivery %s, attempt %d: %s", delivery.id, delivery.attempt, error)
        status = 0
    arrived = 200 <= status < 300
    await asyncio.to_thread(store.settle_delivery, delivery.id, status, arrived=arrived)
