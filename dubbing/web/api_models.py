"""What the API says: the words of its answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dubbing.jobs import Job, State
from dubbing.web import pages
from dubbing.web.identity import Visitor

Shown = Literal["queued", "running", "paused", "done", "done_with_warnings", "failed", "cancelled"]
MOST_ID = 2**63 - 1
"""Largest number of an event or of a place in a list."""


PLAIN = r"^[^\x00]*$"
"""Text without the character that PostgreSQL cannot hold."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Problem(_Part):
    """Why a request was refused (RFC 9457)."""

    type: str = Field(default="about:blank", description="Where the code is explained.")
    title: str = Field(description="A sentence about what happened.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(default="", description="What can be done about it.")
    code: str = Field(description="The name of the problem, which does not change.")
    retryable: bool = Field(default=False, description="Whether the same request may succeed later.")
    stage: str | None = Field(default=None, description="Stage of the job that failed, if one did.")


class StageOut(_Part):
    """How far one stage of a job is."""

    stage: str = Field(description="ingest, transcribe, translate, speak, mix and so on.")
    target: str | None = Field(default=None, description="Target language; null for stages done once for the job.")
    done: int = Field(description="Units that are finished: lines, or 0 to 100.")
    total: int = Field(description="Units in all.")
    eta_s: float | None = Field(default=None, description="Seconds to the end of the stage; null while unknown.")
    note: str = Field(default="", description="Why something was chosen or waits.")


class ErrorOut(_Part):
    """The last failure of a job."""

    code: str
    message: str
    hint: str = ""
    retryable: bool = False


class ResultOut(_Part):
    """What the latest run that ended well has left; each name is one of the job's files."""

    model_config = ConfigDict(frozen=True, extra="allow")

    report: str | None = Field(description="Name of the report.")
    files: Mapping[str, tuple[str, ...]] = Field(description="Names of the files of each dub, the film first.")
    warnings: tuple[str, ...] = Field(default=(), description="What to look at, a sentence each.")


class JobOut(_Part):
    """A job as it is now: always the whole of it, so that a later one replaces an earlier one."""

    id: str = Field(description="32 hexadecimal digits.")
    title: str
    user_id: str = Field(description="Id of its owner.")
    source: str = Field(description="Name of the file it dubs.")
    state: Shown
    asked: Literal["cancel", "pause"] | None = Field(description="What was asked of a running job and is not done yet.")
    targets: tuple[str, ...] = Field(description="BCP-47 tags.")
    priority: int
    attempt: int = Field(description="Failed runs so far.")
    crash_count: int = Field(description="Runs that ended with the death of their runner.")
    mine: bool = Field(description="Whether it belongs to the one who asks.")
    shared: bool = Field(description="Whether every user of the server may look at it.")
    progress: tuple[StageOut, ...] = Field(description="Stages of the latest run, in order.")
    warnings: tuple[str, ...] = Field(description="What to look at in the result, a sentence each.")
    result: ResultOut | None = Field(description="null until a run has ended well.")
    error: ErrorOut | None = Field(description="The last failure; null when there was none.")
    created_ms: int = Field(description="Milliseconds since 1970.")
    started_ms: int | None
    finished_ms: int | None
    run_at_ms: int = Field(description="It does not run before this time; 0 for at once.")


class JobList(_Part):
    """A part of the list of jobs, newest first."""

    jobs: tuple[JobOut, ...]
    cursor: str | None = Field(description="Give it back to get what follows; null at the end.")


class EventOut(_Part):
    """Something that happened to a job."""

    id: int = Field(description="Grows: ask for what came after the last one you saw.")
    job_id: str
    at_ms: int
    kind: str = Field(description="A state of the job, or progress, target, asked.")
    data: Mapping[str, Any]


class EventList(_Part):
    """Events, oldest first."""

    events: tuple[EventOut, ...]


class FileOut(_Part):
    """A result."""

    name: str
    size: int = Field(description="Bytes.")
    changed_ms: int = Field(description="When it was written, milliseconds since 1970.")
    content_type: str
    language: str | None = Field(description="BCP-47 tag; null for files of the whole job.")
    href: str = Field(description="Where it is downloaded.")


class FileList(_Part):
    """The results of a job."""

    files: tuple[FileOut, ...]


class Lines(_Part):
    """The lines of one dub, as its lines.json has them."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Me(_Part):
    """Who asks."""

    id: str
    name: str
    role: Literal["viewer", "user", "admin"]
    scope: Literal["read", "write"] = Field(description="read for keys that may only look.")
    quota_mb: int = Field(description="Megabytes of uploads and results; 0 for no limit.")


class UserOut(_Part):
    """A user."""

    id: str
    name: str
    role: Literal["viewer", "user", "admin"]
    disabled: bool = Field(description="Whether he is locked out.")


class UserList(_Part):
    """Everybody."""

    users: tuple[UserOut, ...]


class InChargeOut(_Part):
    """Who orders the jobs."""

    queue: str = Field(description="redis or fallback.")
    dispatcher: str = Field(description="The last one that ran; empty when none has.")


class QueueOut(_Part):
    """The line of jobs."""

    reason: str = Field(description="Which queue is used, and why.")
    in_charge: InChargeOut
    alive: tuple[str, ...] = Field(description="Dispatchers that gave a sign of life.")
    jobs: Mapping[str, int] = Field(description="How many jobs are in which state.")
    settings: Mapping[str, int] = Field(description="Caps, weights and pauses, as `scope:name:field`.")
    warnings: tuple[str, ...]


class PauseFields(BaseModel):
    """Whose jobs are meant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: str | None = Field(default=None, max_length=80, pattern=PLAIN, description="Name of a user; null for all.")


class Switched(_Part):
    """Whose jobs were paused or let go on."""

    user: str | None = Field(description="Name of a user; null for all.")
    paused: bool


class KeyFields(BaseModel):
    """An API key that is asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=80, pattern=PLAIN, description="What it is for.")
    scope: Literal["read", "write"] = "write"
    expires_days: int = Field(default=0, ge=0, le=3650, description="Days it is good for; 0 for always.")


class KeyOut(_Part):
    """An API key, without its secret."""

    id: str
    name: str
    scope: Literal["read", "write"]
    created_ms: int
    used_ms: int = Field(description="0 when it was never used.")
    expires_ms: int = Field(description="0 for never.")


class NewKey(KeyOut):
    """An API key that was just made."""

    secret: str = Field(description="Shown this once: send it as `Authorization: Bearer ...`.")


class KeyList(_Part):
    """API keys, oldest first."""

    keys: tuple[KeyOut, ...]


class WebhookFields(BaseModel):
    """A webhook that is asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(min_length=1, max_length=2000, description="http or https address that takes POST requests.")


class SentOut(_Part):
    """One message to a webhook."""

    event_id: int
    attempt: int = Field(description="Attempts so far.")
    due_ms: int = Field(description="When the next attempt is; 0 when it has arrived or was given up.")
    status: int = Field(description="HTTP status of the last answer; 0 when there was none.")


class WebhookOut(_Part):
    """An address that is told how jobs end."""

    id: str
    url: str
    created_ms: int
    deliveries: tuple[SentOut, ...] = Field(default=(), description="The latest messages, newest first.")


class NewWebhook(WebhookOut):
    """A webhook that was just made."""

    secret: str = Field(description="Shown this once: it signs what is sent.")


class WebhookList(_Part):
    """Webhooks, oldest first."""

    webhooks: tuple[WebhookOut, ...]


def job_out(job: Job, visitor_id: str) -> JobOut:
    """A job as the API shows it; paths of the server stay inside."""
    result = job.result
    ended_well = job.state in (State.DONE, State.WARNED)
    return JobOut.model_validate(
        {
            "id": job.id,
            "title": pages.title(job),
            "user_id": job.user_id,
            "source": PurePath(str(job.request.get("source", ""))).name,
            "state": job.state.shown,
            "asked": job.asked,
            "targets": tuple(job.request.get("targets", ())),
            "priority": job.priority,
            "attempt": job.attempt,
            "crash_count": job.crash_count,
            "mine": job.user_id == visitor_id,
            "shared": job.shared,
            "progress": tuple((job.progress or {}).get("stages", ())),
            "warnings": tuple((result or {}).get("warnings", ())) if ended_well else (),
            "result": None if result is None else {**result, **_names(result)},
            "error": None if ended_well else job.error,
            "created_ms": job.created_ms,
            "started_ms": job.started_ms,
            "finished_ms": job.finished_ms,
            "run_at_ms": job.run_at_ms,
        }
    )


def _names(result: Mapping[str, Any]) -> dict[str, Any]:
    """The files of a result without the folder they lie in."""
    report = result.get("report")
    return {
        "report": PurePath(str(report)).name if report else None,
        "files": {tag: [PurePath(path).name for path in paths] for tag, paths in result.get("files", {}).items()},
    }


def me_out(visitor: Visitor) -> Me:
    """Who asks."""
    user = visitor.user
    return Me(id=user.id, name=user.name, role=user.role, scope=visitor.scope, quota_mb=user.quota_mb)
