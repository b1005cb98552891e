"""From what a program asks to a job in the queue."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from dubbing import glossary, orders
from dubbing.errors import FileMissingError, ForbiddenError, LanguageError, UsageError
from dubbing.jobs import DEFAULT_PRIORITY, Job, cost_of
from dubbing.types import DubRequest
from dubbing.upload_errors import UploadUnfinishedError
from dubbing.web import new_dub
from dubbing.web.api_models import PLAIN
from dubbing.web.identity import Visitor
from dubbing.web.new_dub import Tag, TextFile
from dubbing.web.office import Office

TAG = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$"
BITS_PER_MS = 2_500
"""Bit rate a video is taken to have, for nobody here opens it: only the fair order of users depends on it."""
DAY_MS = 86_400_000
LATEST_MS = 2**47
Kind = Literal["transcribe", "align", "translate", "speak", "separate", "diarize"]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=PLAIN)]
Term = Annotated[str, Field(min_length=1, max_length=glossary.MAX_CHARS, pattern=PLAIN)]


class JobFields(BaseModel):
    """What a job is asked to do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="Absolute path of a video or audio file on the server, for administrators only; or else `upload`.",
    )
    upload: str | None = Field(
        default=None,
        max_length=64,
        pattern=PLAIN,
        description="Id of a whole upload of your own: the last part of the address that `POST /api/v1/uploads` answers.",
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
    run_at_ms: int = Field(
        default=0, ge=0, le=LATEST_MS, description="Not before this time, since 1970; 0 for at once."
    )
    speakers: int | None = Field(default=None, ge=1, le=100, description="How many people speak at most, if known.")
    engines: dict[Kind, Name] = Field(default={}, description="Engines to insist on, by kind.")
    voices: dict[Name, Name] = Field(
        default={}, max_length=100, description="Voices to insist on, by speaker; `*` is for everybody."
    )
    transcript: TextFile | None = Field(
        default=None, description="What is said, as SRT, WebVTT, ASS or plain text; only with `upload`."
    )
    translations: dict[Tag, TextFile] = Field(
        default={}, max_length=20, description="Subtitles that replace a translation, by language; only with `upload`."
    )
    glossary: dict[Tag, tuple[tuple[Term, Term], ...]] = Field(
        default={}, max_length=20, description="Terms and how they are translated, by language; equal ones are kept."
    )


def submit(desk: Office, visitor: Visitor, fields: JobFields, key: str | None = None) -> tuple[Job, bool]:
    """Put an upload, or a file of the server, in the queue; (job, False) when the idempotency key was used for this before.

    Raises NotFoundError, UploadUnfinishedError; ForbiddenError for files of the server, but to administrators;
    FileMissingError, LanguageError, SubtitleError, UsageError, IdempotencyError. Blocks.
    """
    if (fields.source is None) == (fields.upload is None):
        raise UsageError(detail="Name an upload or a file of the server, and not both")
    if fields.upload is not None:
        return submit_upload(desk, visitor, fields.upload, fields, key)
    return submit_source(desk, visitor, str(fields.source), fields, key)


def submit_upload(
    desk: Office, visitor: Visitor, upload_id: str, fields: JobFields, key: str | None
) -> tuple[Job, bool]:
    """Put an upload of the visitor's own in the queue. Raises as `submit`."""
    _check(fields)
    _check_priority(visitor, fields)
    upload = desk.store.upload(visitor.user.id, upload_id)
    if not upload.whole:
        raise UploadUnfinishedError(name=upload.name, received=upload.received, size=upload.size)
    return submit_file(desk, visitor, new_dub.take(desk, upload), fields, key)


def submit_source(desk: Office, visitor: Visitor, source: str, fields: JobFields, key: str | None) -> tuple[Job, bool]:
    """Put a file of the server in the queue. Raises as `submit`."""
    if not visitor.actor.sees_all:
        raise ForbiddenError(role=visitor.actor.role, action="name files of the server")
    path = Path(source)
    if "\0" in source or not path.is_absolute():
        raise UsageError(detail="The source must be an absolute path on the server")
    if len(path.name.encode()) > 255 or not path.is_file():
        raise FileMissingError(name=path.name)
    if fields.transcript or fields.translations:
        raise UsageError(detail="A transcript or a translation goes with an upload, beside which it is kept")
    return submit_file(desk, visitor, path.resolve(), fields, key)


def submit_file(
    desk: Office, visitor: Visitor, source: Path, fields: JobFields, key: str | None = None
) -> tuple[Job, bool]:
    """Put a file that the visitor may use in the queue. Raises as `submit`."""
    targets = _check(fields)
    _check_priority(visitor, fields)
    kept = {tag: new_dub.kept(source, tag, text) for tag, text in fields.translations.items()}
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
        transcript=new_dub.kept(source, "transcript", fields.transcript),
        translations={tag: path for tag, path in kept.items() if path},
        speakers=fields.speakers,
        engines={str(kind): name for kind, name in fields.engines.items()},
        voices=fields.voices,
        glossary=fields.glossary,
    )
    asked = orders.to_json(request) | ({"title": fields.title} if fields.title else {})
    cost = cost_of(source.stat().st_size * 8 // BITS_PER_MS, len(targets))
    return desk.intake.submit(
        visitor.actor,
        asked,
        targets=targets,
        priority=fields.priority,
        cost=cost,
        run_at_ms=fields.run_at_ms,
        key=key,
    )


def _check_priority(visitor: Visitor, fields: JobFields) -> None:
    if fields.priority > DEFAULT_PRIORITY and not visitor.actor.sees_all:
        raise ForbiddenError(role=visitor.actor.role, action=f"ask for a priority above {DEFAULT_PRIORITY}")


def _check(fields: JobFields) -> tuple[str, ...]:
    """The target languages, each once."""
    spoken = () if fields.source_language == "auto" else (fields.source_language,)
    for tag in (*fields.targets, *fields.translations, *fields.glossary, *spoken):
        if not re.fullmatch(TAG, tag) or len(tag) > 35:
            raise LanguageError(detail=f"{tag[:40]!r} is not a language tag such as es, pt-BR or zh")
    for tag in (*fields.translations, *fields.glossary):
        if tag not in fields.targets:
            raise UsageError(detail=f"There is a text for {tag}, which is not among the target languages")
    for tag in fields.targets:
        if spoken and tag not in fields.translations and tag.split("-")[0].lower() == spoken[0].split("-")[0].lower():
            raise LanguageError(detail=f"The speech is already in {spoken[0]}; choose another language than {tag}")
    if fields.start_ms is not None and fields.end_ms is not None and fields.start_ms >= fields.end_ms:
        raise UsageError(detail="start_ms must come before end_ms")
    if any(len(terms) > glossary.MAX_TERMS for terms in fields.glossary.values()):
        raise UsageError(detail=f"A glossary has more than {glossary.MAX_TERMS} terms")
    new_dub.check_texts(fields.transcript, fields.translations)
    return tuple(dict.fromkeys(fields.targets))
