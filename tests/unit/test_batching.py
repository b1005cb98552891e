from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from dubbing.engines.batching import MicroBatcher
from dubbing.errors import EngineBrokenError, EngineError


class Model:
    """Doubles what it is given and notes every batch; `hold` keeps it busy until `release`."""

    def __init__(self, fail: Callable[[Sequence[Any]], BaseException | None] = lambda batch: None) -> None:
        self.batches: list[list[Any]] = []
        self.threads: set[str] = set()
        self.entered = threading.Event()
        self._gate = threading.Event()
        self._gate.set()
        self._fail = fail

    def hold(self) -> None:
        self._gate.clear()

    def release(self) -> None:
        self._gate.set()

    def __call__(self, batch: Sequence[Any]) -> list[Any]:
        self.batches.append(list(batch))
        self.threads.add(threading.current_thread().name)
        self.entered.set()
        assert self._gate.wait(20)
        if error := self._fail(batch):
            raise error
        return [(item, "done") for item in batch]


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def busy(batcher: MicroBatcher[Any, Any], model: Model) -> asyncio.Task[Any]:
    """Occupy the model with one item, so that what comes next has to wait."""
    model.hold()
    model.entered.clear()
    task = asyncio.create_task(batcher("plug", lane="plug"))
    await until(model.entered.is_set)
    return task


def submit(batcher: MicroBatcher[Any, Any], items: Sequence[Any], lane: str = "") -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(batcher(item, lane=lane)) for item in items]


def test_everything_that_arrives_while_the_model_is_busy_goes_into_the_next_batch() -> None:
    async def scenario() -> None:
        model = Model()
        batcher = MicroBatcher(model, max_size=16, linger_s=0)
        plug = await busy(batcher, model)
        tasks = submit(batcher, range(10))
        await until(lambda: batcher.stats().waiting == 10)
        model.release()
        assert await asyncio.gather(*tasks) == [(i, "done") for i in range(10)]
        await plug
        assert [len(b) for b in model.batches] == [1, 10]
        await batcher.aclose()

    run(scenario())


def test_no_batch_is_larger_than_the_limit_and_all_run_on_one_thread() -> None:
    async def scenario() -> None:
        model = Model()
        batcher = MicroBatcher(model, max_size=4)
        await asyncio.gather(*submit(batcher, range(11)))
        assert [len(b) for b in model.batches] == [4, 4, 3]
        assert len(model.threads) == 1
        await batcher.aclose()

    run(scenario())


def test_a_full_batch_does_not_wait_for_the_linger() -> None:
    async def scenario() -> None:
        batcher = MicroBatcher(Model(), max_size=4, linger_s=3600)
        await asyncio.gather(*submit(batcher, range(8)))
        await batcher.aclose()

    run(scenario())


def test_a_batch_that_fills_up_during_the_linger_starts_at_once() -> None:
    async def scenario() -> None:
        batcher = MicroBatcher(Model(), max_size=2, linger_s=3600)
        [first] = submit(batcher, [1])
        await until(lambda: batcher.stats().waiting == 1)
        await asyncio.gather(first, *submit(batcher, [2]))
        await batcher.aclose()

    run(scenario())


def test_a_lone_item_is_served_after_the_linger() -> None:
    async def scenario() -> None:
        batcher = MicroBatcher(Model(), max_size=16, linger_s=0.01)
        assert await batcher(7) == (7, "done")
        await batcher.aclose()

    run(scenario())


def test_jobs_take_turns_within_a_batch() -> None:
    async def scenario() -> None:
        model = Model()
        batcher = MicroBatcher(model, max_size=6, linger_s=0)
        await busy(batcher, model)
        long = submit(batcher, [("long", i) for i in range(9)], "long")
        short = submit(batcher, [("short", i) for i in range(3)], "short")
        await until(lambda: batcher.stats().waiting == 12)
        model.release()
        await asyncio.gather(*long, *short)
        assert sorted(job for job, _ in model.batches[1]) == ["long"] * 3 + ["short"] * 3
        assert [i for job, i in model.batches[1] if job == "long"] == [0, 1, 2]
        await batcher.aclose()

    run(scenario())


def test_a_job_of_weight_three_gets_three_times_the_items() -> None:
    async def scenario() -> None:
        model = Model()
        weights = {"high": 3.0, "low": 1.0, "plug": 1.0}
        batcher = MicroBatcher(model, max_size=8, linger_s=0, lane_weight=weights.__getitem__)
        await busy(batcher, model)
        tasks = [t for lane in ("high", "low") for t in submit(batcher, [lane] * 40, lane)]
        await until(lambda: batcher.stats().waiting == 80)
        model.release()
        await asyncio.gather(*tasks)
        first_four = [job for batch in model.batches[1:5] for job in batch]
        assert first_four.count("high") == 24
        assert first_four.count("low") == 8
        await batcher.aclose()

    run(scenario())


def test_a_job_whose_priority_changes_while_it_runs_is_served_by_the_new_one() -> None:
    async def scenario() -> None:
        model = Model()
        weights = {"raised": 1.0}
        batcher = MicroBatcher(model, max_size=8, linger_s=0, lane_weight=lambda lane: weights.get(lane, 1.0))
        await busy(batcher, model)
        tasks = submit(batcher, ["raised"] * 20, "raised") + submit(batcher, ["other"] * 20, "other")
        await until(lambda: batcher.stats().waiting == 40)
        weights["raised"] = 3.0
        tasks += submit(batcher, ["raised"], "raised")
        await until(lambda: batcher.stats().waiting == 41)
        model.release()
        await asyncio.gather(*tasks)
        assert model.batches[1].count("raised") == 6
        await batcher.aclose()

    run(scenario())


def test_a_job_that_comes_back_after_a_pause_does_not_claim_the_turns_it_missed() -> None:
    async def scenario() -> None:
        model = Model()
        batcher = MicroBatcher(model, max_size=4, linger_s=0)
        await asyncio.gather(*submit(batcher, range(2), "late"))
        await asyncio.gather(*submit(batcher, range(100), "steady"))
        model.batches.clear()
        await busy(batcher, model)
        tasks = submit(batcher, ["steady"] * 8, "steady") + submit(batcher, ["late"] * 8, "late")
        await until(lambda: batcher.stats().waiting == 16)
        model.release()
        await asyncio.gather(*tasks)
        assert model.batches[1].count("late") in (2, 3)
        await batcher.aclose()

    run(scenario())


def test_a_cancelled_caller_is_skipped() -> None:
    async def scenario() -> None:
        model = Model()
        batcher = MicroBatcher(model, max_size=8, linger_s=0)
        await busy(batcher, model)
        tasks = submit(batcher, range(4))
        await until(lambda: batcher.stats().waiting == 4)
        tasks[1].cancel()
        await until(lambda: batcher.stats().waiting == 3)
        model.release()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert model.batches[1] == [0, 2, 3]
        await batcher.aclose()

    run(scenario())


def test_a_thousand_cancelled_lines_cost_no_call_of_the_model() -> None:
    async def scenario() -> None:
        model = Model()
        batcher = MicroBatcher(model, max_size=8, linger_s=0)
        plug = await busy(batcher, model)
        tasks = submit(batcher, range(1000), "film")
        await until(lambda: batcher.stats().waiting == 1000)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        model.release()
        await plug
        assert await batcher("next") == ("next", "done")
        assert [len(b) for b in model.batches] == [1, 1]
        await batcher.aclose()

    run(scenario())


def test_a_caller_who_leaves_while_the_model_works_does_not_disturb_the_others() -> None:
    async def scenario() -> None:
        model = Model()
        batcher = MicroBatcher(model, max_size=2)
        model.hold()
        stays, leaves = submit(batcher, [1, 2])
        await until(model.entered.is_set)
        leaves.cancel()
        model.release()
        assert await stays == (1, "done")
        await batcher.aclose()

    run(scenario())


@pytest.mark.parametrize("bad", range(8))
def test_only_the_bad_item_of_a_batch_fails(bad: int) -> None:
    async def scenario() -> None:
        model = Model(lambda batch: ValueError("bad line") if bad in batch else None)
        batcher = MicroBatcher(model, max_size=8)
        answers = await asyncio.gather(*submit(batcher, range(8)), return_exceptions=True)
        assert isinstance(answers[bad], ValueError)
        assert [a for i, a in enumerate(answers) if i != bad] == [(i, "done") for i in range(8) if i != bad]
        assert len(model.batches) <= 1 + 2 * 3, "halving 8 items finds one of them in three steps"
        await batcher.aclose()

    run(scenario())


def test_an_error_in_the_place_of_an_answer_fails_that_item_alone_and_runs_nothing_again() -> None:
    async def scenario() -> None:
        calls = []

        def model(batch: Sequence[int]) -> list[int | EngineError]:
            calls.append(list(batch))
            return [EngineError(name="model", detail="no end") if item == 2 else item * 10 for item in batch]

        batcher: MicroBatcher[int, int] = MicroBatcher(model, max_size=4, linger_s=0.2)
        answers = await asyncio.gather(*submit(batcher, range(4)), return_exceptions=True)
        assert isinstance(answers[2], EngineError)
        assert [*answers[:2], answers[3]] == [0, 10, 30]
        assert calls == [[0, 1, 2, 3]]
        await batcher.aclose()

    run(scenario())


def test_a_batch_that_is_too_large_for_memory_is_halved_and_the_next_one_is_full_again() -> None:
    async def scenario() -> None:
        model = Model(lambda batch: MemoryError("CUDA out of memory") if len(batch) > 4 else None)
        batcher = MicroBatcher(model, max_size=8)
        assert len(await asyncio.gather(*submit(batcher, range(8)))) == 8
        assert [len(b) for b in model.batches] == [8, 4, 4]
        await asyncio.gather(*submit(batcher, range(8)))
        assert len(model.batches[3]) == 8
        await batcher.aclose()

    run(scenario())


def test_a_broken_engine_fails_the_whole_batch_at_once() -> None:
    async def scenario() -> None:
        model = Model(lambda batch: EngineBrokenError(name="m", detail="its weights are gone"))
        batcher = MicroBatcher(model, max_size=8)
        answers = await asyncio.gather(*submit(batcher, range(8)), return_exceptions=True)
        assert [type(a) for a in answers] == [EngineBrokenError] * 8
        assert len(model.batches) == 1
        await batcher.aclose()

    run(scenario())


def test_a_wrong_number_of_answers_is_an_error_and_not_a_shift() -> None:
    async def scenario() -> None:
        batcher: MicroBatcher[int, int] = MicroBatcher(lambda batch: [1] * (len(batch) + 1), max_size=4, name="odd")
        answers = await asyncio.gather(*submit(batcher, range(2)), return_exceptions=True)
        assert all(isinstance(a, EngineError) and "2 answers came out" in str(a) for a in answers)
        await batcher.aclose()

    run(scenario())


def test_a_model_that_raises_stop_iteration_does_not_hang_its_callers() -> None:
    async def scenario() -> None:
        batcher = MicroBatcher(Model(lambda batch: StopIteration()), max_size=4)
        with pytest.raises(EngineError):
            await batcher(1)
        await batcher.aclose()

    run(scenario())


def test_a_batch_holds_one_bucket_and_every_bucket_gets_its_turn() -> None:
    async def scenario() -> None:
        model = Model()
        batcher = MicroBatcher(model, max_size=4, linger_s=0, bucket=lambda item: item[0])
        await busy(batcher, model)
        tasks = submit(batcher, [(pair, i) for i in range(8) for pair in ("en-es", "en-fr")], "job")
        await until(lambda: batcher.stats().waiting == 16)
        model.release()
        await asyncio.gather(*tasks)
        pairs = [{item[0] for item in batch} for batch in model.batches[1:]]
        assert all(len(found) == 1 for found in pairs)
        assert len(pairs) == 4
        assert {"en-fr"} in pairs[:3]
        await batcher.aclose()

    run(scenario())


def test_a_bucket_is_shared_by_all_jobs() -> None:
    async def scenario() -> None:
        model = Model()
        batcher = MicroBatcher(model, max_size=4, linger_s=0, bucket=lambda item: item[0])
        await busy(batcher, model)
        tasks = [t for job in ("a", "b", "c", "d") for t in submit(batcher, [("en-es", job), ("en-fr", job)], job)]
        await until(lambda: batcher.stats().waiting == 8)
        model.release()
        await asyncio.gather(*tasks)
        assert [sorted(item[1] for item in batch) for batch in model.batches[1:]] == [["a", "b", "c", "d"]] * 2
        await batcher.aclose()

    run(scenario())


def test_size_and_linger_can_be_changed_while_it_runs() -> None:
    async def scenario() -> None:
        model = Model()
        batcher = MicroBatcher(model, max_size=2)
        await asyncio.gather(*submit(batcher, range(4)))
        batcher.reconfigure(max_size=4, linger_s=3600)
        await asyncio.gather(*submit(batcher, range(4)))
        assert [len(b) for b in model.batches] == [2, 2, 4]
        with pytest.raises(ValueError, match="at least 1"):
            batcher.reconfigure(max_size=0)
        await batcher.aclose()

    run(scenario())


def test_the_counts_say_what_was_done() -> None:
    async def scenario() -> None:
        batcher = MicroBatcher(Model(), max_size=4)
        assert batcher.stats().mean_batch == 0
        await asyncio.gather(*submit(batcher, range(6)))
        stats = batcher.stats()
        assert (stats.batches, stats.items, stats.mean_batch, stats.waiting) == (2, 6, 3.0, 0)
        assert stats.busy_s > 0
        await batcher.aclose()

    run(scenario())


def test_closing_fails_who_waits_and_lets_the_running_batch_end() -> None:
    async def scenario() -> None:
        model = Model()
        batcher = MicroBatcher(model, max_size=1, linger_s=0, name="whisper")
        plug = await busy(batcher, model)
        waiting = submit(batcher, [1, 2])
        await until(lambda: batcher.stats().waiting == 2)
        closing = asyncio.create_task(batcher.aclose())
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(a, EngineError) and "whisper" in str(a) and a.retryable for a in answers)
        model.release()
        await closing
        assert await plug == ("plug", "done")
        with pytest.raises(EngineError, match="shut down"):
            await batcher(3)
        await batcher.aclose()

    run(scenario())


def test_four_jobs_fill_the_batches_and_a_short_job_is_not_stuck_behind_a_long_one() -> None:
    async def job(batcher: MicroBatcher[Any, Any], model: Model, name: str, lines: int) -> int:
        """Eight lines in flight, like a stage; the number of batches that ran until the end of the job."""
        room = asyncio.Semaphore(8)

        async def line(i: int) -> None:
            async with room:
                await batcher((name, i), lane=name)

        await asyncio.gather(*(line(i) for i in range(lines)))
        return len(model.batches)

    async def scenario() -> None:
        alone_model = Model()
        alone_batcher = MicroBatcher(alone_model, max_size=16)
        alone = await job(alone_batcher, alone_model, "short", 40)
        await alone_batcher.aclose()

        model = Model()
        batcher = MicroBatcher(model, max_size=16)
        short, *_ = await asyncio.gather(
            job(batcher, model, "short", 40),
            job(batcher, model, "film", 1000),
            job(batcher, model, "course", 300),
            job(batcher, model, "talk", 300),
        )
        together = [len(batch) for batch in model.batches if any(name == "film" for name, _ in batch)]
        shared = [len(b) for b in model.batches[: 300 // 8]]
        assert sum(shared) / len(shared) >= 0.8 * 16
        assert short <= 2 * alone + 2, f"{short} batches among others, {alone} alone"
        assert len(together) > short
        await batcher.aclose()

    run(scenario())


def test_a_short_job_behind_a_thousand_waiting_lines_needs_at_most_twice_its_batches() -> None:
    async def scenario() -> None:
        model = Model()
        batcher = MicroBatcher(model, max_size=16, linger_s=0)
        await busy(batcher, model)
        film = submit(batcher, ["film"] * 1000, "film")
        await until(lambda: batcher.stats().waiting == 1000)
        short = submit(batcher, ["short"] * 32, "short")
        await until(lambda: batcher.stats().waiting == 1032)
        model.release()
        await asyncio.gather(*short)
        alone = 32 / 16
        assert len(model.batches) - 1 <= 2 * alone + 1
        await asyncio.gather(*film)
        await batcher.aclose()

    run(scenario())
