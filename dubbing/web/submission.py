"""From what a program asks to a job in the queue."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dubbing import orders
from dubbing.errors import FileMissingError, ForbiddenError, LanguageError, UsageError
from dubbing.jobs import DEFAULT_PRIORITY, Job, cost_of
from dubbing.types import DubRequest
from dubbing.web.identity import Visitor
from dubbing.web.office import Office

TAG = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$"
BITS_PER_MS = 2_500
"""Bit rate a video is taken to have, for nobody here opens it: only the fair order of users depends on it."""
DAY_MS = 86_400_000


class JobFields(BaseModel):
    """What a job is asked to do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(
        min_length=1,
        max_length=4096,
        description="Absolute path of a video or audio file on the server; for administrators only.",
    )
    targets: tuple[str, ...] = Field(
        min_length=1,
        max_length=20,
        description="Languages to dub into, BCP-47 tags such as es or pt-BR; the first is the default sound track.",
    )
    source_language: str = Field(
        default="auto", max_length=35, description="BCP-47 tag of the speech; auto takes the label of the sound track."
    )
    title: str | None = Field(
        default=None, max_length=200, description="What the lists call the job; default is the file's name."
    )
    quality: Literal["auto", "draft", "good", "best"] | None = Field(
        default=None, description="The one dial; default is the server's."
    )
    priority: int = Field(
        default=DEFAULT_PRIORITY, ge=0, le=100, description="Higher runs first; above 50 is for administrators."
    )
    start_ms: int | None = Field(
        default=None, ge=0, le=DAY_MS, description="Where the part to dub begins; default is the start."
    )
    end_ms: int | None = Field(
        default=None, ge=1, le=DAY_MS, description="Where the part to dub ends; default is the end."
    )
    audio_track: int = Field(default=1, ge=1, le=32, description="Sound track to dub; 1 is the first.")
    keep_background: bool = Field(default=True, description="Keep the original sound, lowered under the dub.")


def submit(desk: Office, visitor: Visitor, fields: JobFields, key: str | None = None) -> tuple[Job, bool]:
    """Put a file of the server in the queue; (job, False) when the idempotency key was used for this before.

    Raises ForbiddenError for everybody but administrators, FileMissingError, LanguageError, UsageError, IdempotencyError.
    """
    if not visitor.actor.sees_all:
        raise ForbiddenError(role=visitor.actor.role, action="name files of the server")
    path = Path(fields.source)
    if "\0" in fields.source or not path.is_absolute():
        raise UsageError(detail="The source must be an absolute path on the server")
    if len(path.name.encode()) > 255 or not path.is_file():
        raise FileMissingError(name=path.name)
    return submit_file(desk, visitor, path.resolve(), fields, key)


def submit_file(
    desk: Office, visitor: Visitor, source: Path, fields: JobFields, key: str | None = None
) -> tuple[Job, bool]:
    """Put a file that the visitor may use in the queue. Raises as `submit`."""
    targets = _check(fields)
    if fields.priority > DEFAULT_PRIORITY and not visitor.actor.sees_all:
        raise ForbiddenError(role=visitor.actor.role, action=f"ask for a priority above {DEFAULT_PRIORITY}")
    request = DubRequest(
        source=source,
        targets=targets,
        # one folder a user: the same film gets the same folder, which is not for others to see
        output_dir=desk.settings.output_dir / visitor.user.name,
        source_language=fields.source_language,
        quality=fields.quality or desk.settings.quality,
        start_ms=fields.start_ms,
        end_ms=fields.end_ms,
        audio_track=fields.audio_track,
        keep_background=fields.keep_background,
    )
    asked = orders.to_json(request) | ({"title": fields.title} if fields.title else {})
    cost = cost_of(source.stat().st_size * 8 // BITS_PER_MS, len(targets))
    return desk.intake.submit(visitor.actor, asked, targets=targets, priority=fields.priority, cost=cost, key=key)


def _check(fields: JobFields) -> tuple[str, ...]:
    """The target languages, each once."""
    spoken = () if fields.source_language == "auto" else (fields.source_language,)
    for tag in (*fields.targets, *spoken):
        if not re.fullmatch(TAG, tag) or len(tag) > 35:
            raise LanguageError(detail=f"{tag[:40]!r} is not a language tag such as es, pt-BR or zh")
    for tag in fields.targets:
        if spoken and tag.split("-")[0].lower() == spoken[0].split("-")[0].lower():
            raise LanguageError(detail=f"The speech is already in {spoken[0]}; choose another language than {tag}")
    if fields.start_ms is not None and fields.end_ms is not None and fields.start_ms >= fields.end_ms:
        raise UsageError(detail="start_ms must come before end_ms")
    return tuple(dict.fromkeys(fields.targets))
