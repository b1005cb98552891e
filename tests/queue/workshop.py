"""A store, a queue, a launcher that obeys the test, and a dispatcher over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dubbing import config
from dubbing.dispatcher import Dispatcher
from dubbing.errors import ClusterError
from dubbing.intake import Intake
from dubbing.jobs import Actor, Job, State
from dubbing.launching import Report
from dubbing.queue.choose import Choice, choose_queue
from dubbing.reconcile import Times
from dubbing.store import Store, open_store

SHORT = Times(
    lease=2.0, renew_index=0.4, renew_row=0.8, fence=1.5, begin=6.0, tick=0.1, rebuild=2.0, adopt=0.2, switch=1.0, stall=30.0,
    relaunch=0.1, soft_cancel=0.3, hard_cancel=0.6,
)  # fmt: skip


class Hand:
    """A monotonic clock that moves when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeLauncher:
    """Notes what it was told; ends runs when the test says so."""

    slots: int = 2
    started: list[tuple[str, int]] = field(default_factory=list)
    cancelled: list[tuple[str, bool]] = field(default_factory=list)
    gone: list[tuple[str, int, str]] = field(default_factory=list)
    broken: bool = False
    on_launch: Callable[[Job], None] = lambda job: None

    def capacity(self) -> Mapping[str, int]:
        return {"cpu": self.slots}

    def launch(self, job: Job, epoch: int) -> None:
        if self.broken:
            raise ClusterError(detail="no nodes")
        self.started.append((job.id, epoch))
        self.on_launch(job)

    def cancel(self, job_id: str, epoch: int, *, force: bool) -> None:
        self.cancelled.append((job_id, force))

    def poll(self) -> Sequence[tuple[str, int, str]]:
        gone, self.gone = self.gone, []
        return gone


class Workshop:
    """Everything of one installation; several dispatchers may share its store."""

    def __init__(self, folder: Path, redis_url: str | None = None, mode: str = "auto", url: str | None = None) -> None:
        env = {"DUBBING_STATE_DIR": str(folder / "state"), "QUEUE_MODE": mode}
        env |= {"REDIS_URL": redis_url} if redis_url else {}
        env |= {"DUBBING_DATABASE_URL": url} if url else {}
        self.settings = config.load(env, None)
        self.store: Store = open_store(self.settings)
        self.choices: list[Choice] = []
        self.clock = Hand()
        self.intake = Intake(self.store, self.choice().queue)
        self.ana: Actor = self.store.add_user("ana").actor
        self.admin: Actor = self.store.add_user("root", "admin").actor

    def choice(self) -> Choice:
        self.choices.append(choose_queue(self.settings, now_ms=self.store.clock_ms()))
        return self.choices[-1]

    def dispatcher(
        self, launcher: FakeLauncher, name: str = "d1", times: Times = SHORT, *, real_time: bool = False
    ) -> Dispatcher:
        clock = {} if real_time else {"monotonic": self.clock}
        return Dispatcher(self.store, self.choice(), launcher, name=name, times=times, **clock)  # type: ignore[arg-type]

    def submit(self, **options: object) -> Job:
        return self.intake.submit(self.ana, {"source": "a.mp4"}, **options)[0]

    def state(self, job: Job) -> State:
        return self.store.job(self.admin, job.id).state

    def close(self) -> None:
        for choice in self.choices:
            choice.close()
        self.store.close()


def finished(job_id: str, epoch: int) -> Report:
    return Report(job_id, epoch, "finished", {"path": "out.mp4"})
