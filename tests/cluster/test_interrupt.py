"""The event loop of a Ray task, without Ray."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pytest

from cluster import interrupt


def interrupt_soon() -> threading.Timer:
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


def test_an_interrupt_wakes_a_quiet_loop_and_lets_it_tidy_up() -> None:
    tidied: list[str] = []

    async def main() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            tidied.append("yes")

    timer, start = interrupt_soon(), time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        interrupt.run(main())
    timer.join()
    assert tidied == ["yes"]
    assert time.monotonic() - start < 5


def test_a_second_interrupt_does_not_break_into_the_tidying_up() -> None:
    tidied: list[str] = []

    async def main() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.05)
            tidied.append("yes")

    with pytest.raises(asyncio.CancelledError):
        interrupt.run(main())
    assert tidied == ["yes"]


def test_the_handler_of_before_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)

    async def main() -> int:
        return 7

    assert interrupt.run(main()) == 7
    assert signal.getsignal(signal.SIGINT) is before
