"""How many slots a backlog asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from dubbing.demand import demand
from dubbing.jobs import Actor
from dubbing.store import Backlog, Fence, Store


def asked(waiting: dict[str, int], running: dict[str, int] | None = None, mine: int | None = None, **caps: int) -> int:
    running = running or {}
    settings = {key.replace("__", ":").replace("all", "*"): value for key, value in caps.items()}
    return demand(Backlog(waiting, running, sum(running.values()) if mine is None else mine), settings, "cpu")


@pytest.mark.parametrize(
    ("slots", "waiting", "running", "caps"),
    [
        (0, {}, {}, {}),
        (2, {"ana": 9}, {}, {}),  # everybody's cap is 2 until somebody says otherwise
        (4, {"ana": 9, "ben": 9}, {}, {}),
        (3, {"ana": 9, "ben": 1}, {}, {}),
        (9, {"ana": 9}, {}, {"user__all__cap": 10}),
        (5, {"ana": 9}, {}, {"user__ana__cap": 5}),
        (0, {"ana": 9}, {}, {"user__ana__cap": 0}),
        (2, {"ana": 9}, {"ana": 2}, {}),  # at his cap: what runs, and no more
        (3, {"ana": 9}, {"ana": 3}, {}),  # above a cap that was lowered: nothing is taken away
        (4, {"ana": 9, "ben": 9}, {"ana": 2}, {}),
        (2, {"ana": 9, "ben": 9}, {}, {"user__ana__paused": 1}),
        (2, {"ben": 9}, {"ana": 2}, {"global____paused": 1}),
        (2, {"ben": 9}, {"ana": 2}, {"pool__cpu__paused": 1}),
        (4, {"ben": 9}, {"ana": 2}, {"pool__gpu__paused": 1}),
        (3, {"ben": 9}, {"ana": 2}, {"global____cap": 3}),
        (3, {"ben": 9}, {"ana": 2}, {"pool__cpu__cap": 3, "global____cap": 9}),
        (2, {"ben": 9}, {"ana": 2}, {"global____cap": 1}),
    ],
)
def test_demand_is_what_runs_and_what_could_start(
    slots: int, waiting: dict[str, int], running: dict[str, int], caps: dict[str, int]
) -> None:
    assert asked(waiting, running, **caps) == slots


def test_runs_of_other_dispatchers_use_up_caps_but_are_their_business() -> None:
    assert asked({"ana": 9}, {"ana": 2}, mine=0, user__ana__cap=5) == 3
    assert asked({"ana": 9}, {"ana": 2}, mine=1, user__ana__cap=5) == 4
    assert asked({"ben": 9}, {"ana": 2}, mine=0, global____cap=3) == 1


def test_the_backlog_of_the_rows_leaves_out_what_is_not_due_paused_ended_or_of_another_pool(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/x.sqlite3")
    ana, ben = store.add_user("ana").actor, store.add_user("ben").actor

    def submit(actor: Actor, **options: object) -> str:
        return store.submit(actor, {}, **options)[0].id  # type: ignore[arg-type]

    for _ in range(3):
        submit(ana)
    submit(ana, run_at_ms=10**14)
    submit(ana, pool="gpu")
    store.pause(ana, submit(ana))
    store.cancel(ben, submit(ben))
    for owner in ("d1", "d1", "d2"):
        fence = Fence(submit(ben), 1, store.in_charge().backend_epoch)
        store.set_setting("user:*:cap", 9)
        assert store.take(fence, owner=owner, ttl_ms=60_000)
    assert store.backlog("cpu", "d1") == Backlog({ana.user_id: 3}, {ben.user_id: 3}, 2)
    assert store.backlog("cpu", "d3") == Backlog({ana.user_id: 3}, {ben.user_id: 3}, 0)
    store.close()
