from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dubbing.jobs import (
    BACKOFF_LONGEST_MS,
    LEGAL,
    TERMINAL,
    WAITING,
    State,
    band_of,
    can_become,
    cost_of,
    is_dead,
    retry_at,
)


def test_the_highest_priority_is_band_zero_and_the_lowest_band_nine() -> None:
    assert [band_of(p) for p in (100, 95, 90, 89, 50, 10, 9, 0)] == [0, 0, 0, 1, 4, 8, 9, 9]


@pytest.mark.parametrize("priority", [-1, 101])
def test_a_priority_outside_0_to_100_is_refused(priority: int) -> None:
    with pytest.raises(ValueError, match=r"0\.\.100"):
        band_of(priority)


def test_every_state_but_the_ended_ones_can_end_cancelled_and_ended_ones_only_start_again() -> None:
    assert all(can_become(s, State.CANCELLED) for s in State if s not in TERMINAL)
    assert all(LEGAL[s] == {State.PENDING} for s in TERMINAL)
    assert all(can_become(s, State.RUNNING) == (s in WAITING) for s in State)


def test_an_error_that_cannot_be_mended_by_waiting_is_not_retried() -> None:
    assert retry_at(retryable=False, attempt=1, max_attempts=5, now_ms=0, job_id="a") is None


def test_a_job_with_five_attempts_is_retried_four_times() -> None:
    decisions = [retry_at(retryable=True, attempt=n, max_attempts=5, now_ms=0, job_id="a") for n in range(1, 6)]
    assert [d is None for d in decisions] == [False] * 4 + [True]


@given(st.integers(1, 60), st.text("0123456789abcdef", min_size=32, max_size=32))
def test_back_off_grows_to_ten_minutes_and_is_the_same_for_the_same_job(attempt: int, job_id: str) -> None:
    first = retry_at(retryable=True, attempt=attempt, max_attempts=99, now_ms=1_000, job_id=job_id)
    assert first == retry_at(retryable=True, attempt=attempt, max_attempts=99, now_ms=1_000, job_id=job_id)
    assert first is not None
    wait = min(10_000 * 2 ** (attempt - 1), BACKOFF_LONGEST_MS)
    assert 0.8 * wait <= first - 1_000 <= 1.2 * wait


def test_jobs_that_failed_together_come_back_at_different_times() -> None:
    times = {retry_at(retryable=True, attempt=1, max_attempts=5, now_ms=0, job_id=str(n)) for n in range(100)}
    assert len(times) > 50


def test_a_job_is_dead_after_its_third_crash_or_the_tenth_death_of_its_dispatcher() -> None:
    assert [is_dead(n, 9) for n in range(5)] == [False, False, False, True, True]
    assert [is_dead(2, n) for n in (0, 9, 10, 11)] == [False, False, True, True]


def test_the_cost_is_minutes_times_targets_and_at_least_one() -> None:
    assert [cost_of(5_000, 1), cost_of(120_000, 2), cost_of(7_200_000, 0), cost_of(10**12, 9)] == [1, 4, 120, 10_000]
