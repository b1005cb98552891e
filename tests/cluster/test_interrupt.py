"""The event loop of a Ray task, without Ray."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from cluster import interrupt


def test_an_interrupt_wakes_a_quiet_loop_and_lets_it_tidy_up() -> None:
    tidied: list[str] = []

    async def main() -> None:
        # from another thread, later: the loop sleeps by then, and nothing else would wake it before the test's own end
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            await asyncio.sleep(86_400)
        finally:
            await asyncio.sleep(0.01)
            tidied.append("yes")

    with pytest.raises(asyncio.CancelledError):
        interrupt.run(main())
    assert tidied == ["yes"]


def test_a_second_interrupt_does_not_break_into_the_tidying_up() -> None:
    tidied: list[str] = []

    async def main() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(86_400)
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
