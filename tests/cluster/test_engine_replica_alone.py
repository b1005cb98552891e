"""The engine replica as an object, without Ray."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from cluster_doubles import english
from cluster_support import eventually_async
from pydantic import ValidationError

from cluster.deployments import EngineLoadError, EngineReplica, load_error
from dubbing.errors import (
    EngineBrokenError,
    EngineError,
    EngineMissingError,
    ProgramMissingError,
    ServiceDownError,
    UsageError,
)
from tests.chat_server import chat_server


def test_a_model_call_that_hangs_fails_the_health_check_until_it_returns() -> None:
    async def scenario() -> None:
        replica = EngineReplica("fake-translate", {"base_ms": 400})
        replica.reconfigure({"stuck_s": 0.1})
        line = asyncio.ensure_future(replica(english("slow"), "job"))

        async def unhealthy() -> bool:
            try:
                await replica.check_health()
            except EngineBrokenError:
                return True
            return False

        await eventually_async(unhealthy)
        await line
        await replica.check_health()

    asyncio.run(scenario())


async def until_it_fails(replica: EngineReplica) -> EngineBrokenError:
    failures: list[EngineBrokenError] = []

    async def unhealthy() -> bool:
        try:
            await replica.check_health()
        except EngineBrokenError as error:
            failures.append(error)
        return bool(failures)

    await eventually_async(unhealthy)
    return failures[0]


def test_an_idle_model_is_probed_and_one_that_fails_the_probe_is_replaced(tmp_path: Path) -> None:
    async def scenario() -> None:
        sick = tmp_path / "sick"
        replica = EngineReplica("fake-translate", {"sick_if": str(sick)})
        replica.reconfigure({"probe_s": 0.01})

        async def probed() -> bool:
            await replica.check_health()
            return replica.probes >= 2

        await eventually_async(probed)
        sick.touch()
        error = await until_it_fails(replica)
        assert (replica.stats().batches, replica.stats().items) == (0, 0)
        assert f"failed its health check (The engine fake-translate failed: {sick} says it is sick)" in error.message
        with pytest.raises(EngineBrokenError):
            await replica.check_health()

    asyncio.run(scenario())


def test_a_model_that_fails_every_line_is_probed_although_it_is_busy(tmp_path: Path) -> None:
    async def scenario() -> None:
        sick = tmp_path / "sick"
        replica = EngineReplica("fake-translate", {"sick_if": str(sick), "poison": "", "base_ms": 5})
        replica.reconfigure({"probe_s": 0.2})

        async def lines() -> None:
            while True:
                with contextlib.suppress(EngineError):
                    await replica(english("fails"), "job")

        async def probed() -> bool:
            await replica.check_health()
            return replica.probes == 1

        await eventually_async(probed)
        sick.touch()
        busy = asyncio.ensure_future(lines())
        error = await until_it_fails(replica)
        assert "says it is sick" in error.message
        busy.cancel()

    asyncio.run(scenario())


def test_a_service_that_is_down_is_no_reason_to_replace_the_replica_that_asks_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        with chat_server() as server:
            monkeypatch.setenv("DUBBING_CHAT_URL", server.url)
            monkeypatch.setenv("DUBBING_CHAT_MODEL", "tiny-chat")
            replica = EngineReplica("chat", {"patience_s": 0.1})
            replica.reconfigure({"probe_s": 0.01})
            asked = server.looked_up

            async def probed() -> bool:
                await replica.check_health()
                return bool(asked) and replica.probes >= 1

            await eventually_async(probed)
            assert server.asked == [], "a probe should cost no tokens"

        async def told() -> bool:
            await replica.check_health()
            return "does not answer" in caplog.text

        await eventually_async(told)
        with pytest.raises(ServiceDownError):
            await replica(english("hello"), "job")
        await replica.check_health()

    asyncio.run(scenario())


def test_a_model_that_has_answered_lately_is_left_alone() -> None:
    async def scenario() -> None:
        replica = EngineReplica("fake-translate", {})
        await replica(english("hello"), "job")
        for _ in range(5):
            await replica.check_health()
            await asyncio.sleep(0)
        assert (replica.stats().items, replica.probes) == (1, 0)

    asyncio.run(scenario())


def test_a_probe_that_hangs_is_found_by_the_same_clock_as_a_line() -> None:
    async def scenario() -> None:
        replica = EngineReplica("fake-translate", {"base_ms": 400})
        replica.reconfigure({"stuck_s": 0.1})
        await replica.check_health()
        assert replica.probes == 0, "the check waited for the probe"
        error = await until_it_fails(replica)
        assert "one call has been running" in error.message

    asyncio.run(scenario())


def test_user_config_changes_the_batches_but_never_beyond_what_the_engine_takes() -> None:
    async def batches(size: int) -> int:
        replica = EngineReplica("fake-translate", {"max_batch": 4})
        replica.reconfigure({"max_size": size, "linger_s": 0.05})
        await asyncio.gather(*(replica(english(str(n)), "job") for n in range(8)))
        return replica.stats().batches

    assert asyncio.run(batches(2)) == 4
    assert asyncio.run(batches(100)) == 2


def test_a_line_asked_for_alone_shares_no_batch() -> None:
    async def batches() -> int:
        replica = EngineReplica("fake-translate", {})
        replica.reconfigure({"linger_s": 0.05})
        await asyncio.gather(*(replica(english(str(n)), "job", alone=n == 0) for n in range(4)))
        return replica.stats().batches

    assert asyncio.run(batches()) == 2


def test_a_user_config_with_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValidationError, match="batch_size"):
        EngineReplica("fake-translate", {}).reconfigure({"batch_size": 4})


def test_an_engine_nobody_registered_is_an_error_of_the_load() -> None:
    with pytest.raises(EngineLoadError) as caught:
        EngineReplica("no-such-engine", {})
    assert isinstance(load_error(f"Serve says:\n{caught.value}\nRetrying."), UsageError)


@pytest.mark.parametrize(
    "error",
    [
        ProgramMissingError(program="apertium", install="apt-get install apertium"),
        EngineMissingError(kind="speak", name="xtts", detail="torch is {missing}", install="pip install torch"),
    ],
)
def test_a_load_error_survives_the_trip_through_a_status_message(
    error: ProgramMissingError | EngineMissingError,
) -> None:
    found = load_error(f"Traceback ...\n  cluster.EngineLoadError: {EngineLoadError(error)}\n")
    assert found is not None
    assert (type(found), found.message, found.advice) == (type(error), error.message, error.advice)


def test_a_status_message_without_a_load_error_holds_none() -> None:
    assert load_error("The deployment is being scheduled.") is None
