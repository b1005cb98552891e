"""What the design claims of engine replicas, on real ones."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest
from cluster_doubles import english
from cluster_support import Cluster, eventually_async, stats
from ray import serve

from cluster.clients import ServeClient, open_engines
from dubbing.errors import EngineBrokenError, EngineError, EngineMissingError

LINES_IN_FLIGHT = 32
LARGEST_BATCH = 16


async def _client(engine: str) -> ServeClient[Any, Any]:
    engines = await open_engines({"translate": engine}, ["es"])
    client = engines.translate["es"]
    assert isinstance(client, ServeClient)
    return client


def _handle(engine: str) -> Any:
    return serve.get_deployment_handle(f"Translator-{engine}", "engines")


def test_batches_are_nearly_full_when_enough_lines_are_in_flight(cluster: Cluster) -> None:
    async def given_thirty_two_callers() -> float:
        client, handle = await _client("costly-translate"), _handle("costly-translate")
        before = await stats(handle)

        async def caller(number: int) -> None:
            for turn in range(6):
                await client(english(f"line {number}/{turn}"), lane=f"job {number % 4}")

        await asyncio.gather(*(caller(number) for number in range(LINES_IN_FLIGHT)))
        after = await stats(handle)
        assert after.items - before.items == LINES_IN_FLIGHT * 6
        return (after.items - before.items) / (after.batches - before.batches)

    assert asyncio.run(given_thirty_two_callers()) >= 0.8 * LARGEST_BATCH


def test_a_line_cancelled_while_it_waits_is_never_run(cluster: Cluster) -> None:
    async def scenario() -> None:
        client, handle = await _client("costly-translate"), _handle("costly-translate")
        kept = [asyncio.ensure_future(client(english(f"kept {n}"), lane="keeps")) for n in range(48)]
        given_up = [asyncio.ensure_future(client(english(f"given up {n}"), lane="gives up")) for n in range(24)]

        async def enough_wait() -> bool:
            return (await stats(handle)).waiting >= 40

        await eventually_async(enough_wait)
        ran_before = {call["text"] for call in cluster.calls_made()}
        for task in given_up:
            task.cancel()
        await asyncio.gather(*given_up, return_exceptions=True)
        answers = await asyncio.gather(*kept)
        assert [answer.text for answer in answers] == [f"[es] kept {n}" for n in range(48)]
        ran = {call["text"] for call in cluster.calls_made()}
        # At most the batch that was running and the one formed before the cancellation arrived.
        assert len({t for t in ran - ran_before if t.startswith("given up")}) <= LARGEST_BATCH
        assert len({t for t in ran if t.startswith("given up")}) < 24

    asyncio.run(scenario())


def test_a_short_job_takes_turns_with_a_long_one(cluster: Cluster) -> None:
    async def scenario() -> None:
        client, handle = await _client("costly-translate"), _handle("costly-translate")
        film = [asyncio.ensure_future(client(english(f"film {n}"), lane="film")) for n in range(128)]

        async def film_waits() -> bool:
            return (await stats(handle)).waiting >= 80

        await eventually_async(film_waits)
        before = len(cluster.calls_made())
        await asyncio.gather(*(client(english(f"clip {n}"), lane="clip") for n in range(4)))
        clip_done_at = len(cluster.calls_made()) - before
        await asyncio.gather(*film)
        # The batch in flight, one that was formed while the clip was on its way, and the clip's own.
        assert clip_done_at <= 3 * LARGEST_BATCH

    asyncio.run(scenario())


def test_an_engines_error_arrives_as_itself_and_only_at_its_line(cluster: Cluster) -> None:
    async def scenario() -> None:
        client = await _client("fake-translate")
        texts = ["one", "poison", "two"]
        answers = await asyncio.gather(*(client(english(t), lane="job") for t in texts), return_exceptions=True)
        assert [getattr(a, "text", None) for a in answers] == ["[es] one", None, "[es] two"]
        assert type(answers[1]) is EngineError
        assert answers[1].message == "The engine fake-translate failed: poisoned by 'poison'"

    asyncio.run(scenario())


def test_lines_of_a_replica_killed_in_flight_are_answered_by_the_next_one(cluster: Cluster) -> None:
    async def scenario() -> None:
        client = await _client("costly-translate")
        await client(english("who are you"), lane="job")
        killed = cluster.calls_made()[-1]["pid"]
        lines = [asyncio.ensure_future(client(english(f"survivor {n}"), lane="job")) for n in range(20)]

        async def one_batch_runs_and_lines_wait() -> bool:
            return 0 < (await stats(_handle("costly-translate"))).waiting < LARGEST_BATCH

        await eventually_async(one_batch_runs_and_lines_wait)
        os.kill(killed, signal.SIGKILL)
        answers = await asyncio.gather(*lines)
        assert [answer.text for answer in answers] == [f"[es] survivor {n}" for n in range(20)]
        assert cluster.calls_made()[-1]["pid"] != killed

    asyncio.run(scenario())


def test_a_line_that_kills_its_replica_twice_fails_alone(cluster: Cluster) -> None:
    async def scenario() -> None:
        client = await _client("deadly-translate")
        texts = [f"line {n}" for n in range(5)] + ["die"] + [f"line {n}" for n in range(5, 10)]
        answers = await asyncio.gather(*(client(english(t), lane="job") for t in texts), return_exceptions=True)
        failed = [text for text, answer in zip(texts, answers, strict=True) if isinstance(answer, BaseException)]
        assert failed == ["die"]
        assert isinstance(answers[5], EngineError)
        assert "ended twice over this line" in answers[5].message

    asyncio.run(scenario())


def test_a_replica_whose_engine_gave_up_is_replaced(cluster: Cluster) -> None:
    async def scenario() -> None:
        client = await _client("brittle-translate")
        with pytest.raises(EngineBrokenError):
            await client(english("break"), lane="job")
        handle = _handle("brittle-translate")

        async def new_one_serves() -> bool:
            return (await stats(handle)).items == 0

        await eventually_async(new_one_serves, within_s=30)
        assert (await client(english("again"), lane="job")).text == "[es] again"

    asyncio.run(scenario())


def test_no_answer_in_time_is_an_error_that_names_the_engine(cluster: Cluster) -> None:
    async def scenario() -> None:
        patient = await _client("costly-translate")
        client: ServeClient[Any, Any] = ServeClient(_handle("costly-translate"), patient.info, timeout_s=0.01)
        with pytest.raises(EngineError, match="costly-translate failed: no answer within"):
            await client(english("hurry"), lane="job")

    asyncio.run(scenario())


def test_an_engine_that_is_not_deployed_is_named(cluster: Cluster) -> None:
    with pytest.raises(EngineMissingError, match="translate engine nllb cannot be used here: it is not deployed"):
        asyncio.run(open_engines({"translate": "nllb"}, ["es"]))
