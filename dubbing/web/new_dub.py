"""From uploads to jobs: the page that takes both, and what its form and programs send."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, UploadFile

from dubbing import orders, subtitles
from dubbing.artifacts import safe_name, write_atomically
from dubbing.errors import ForbiddenError, LanguageError, NotFoundError, SubtitleError, UsageError
from dubbing.jobs import DEFAULT_PRIORITY, Actor, Job, cost_of
from dubbing.languages import COMMON, all_tags, is_tag
from dubbing.store import Upload
from dubbing.types import DubRequest, Quality
from dubbing.upload_errors import UploadUnfinishedError
from dubbing.web import pages, voice_pages
from dubbing.web.bounds import bounded
from dubbing.web.errors import is_api
from dubbing.web.identity import Visitor, Writer
from dubbing.web.office import Desk, Office

router = APIRouter()
BITS_PER_MS = 2_500
"""Bit rate a video is taken to have until it is opened: only the fair order of users depends on it."""
Tag = Annotated[str, Field(max_length=35)]
Chosen = Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z0-9._-]+ [^\x00-\x1f\x7f]+$")]


class TextFile(BaseModel):
    """A subtitle file or transcript."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("subtitles", max_length=255)
    """What its owner calls it."""
    text: str = Field(max_length=subtitles.MAX_BYTES)


class NewDub(BaseModel):
    """What is asked of one upload or of several, each of which becomes a job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uploads: tuple[str, ...] = Field(max_length=50)
    """Ids of whole uploads."""
    targets: tuple[Tag, ...] = Field(max_length=50)
    """BCP-47 tags in the order of the sound tracks."""
    source_language: Tag = "auto"
    """BCP-47 tag, or `auto`: as the sound track is labelled, or as heard."""
    quality: Quality = "auto"
    priority: int = Field(DEFAULT_PRIORITY, ge=0, le=100)
    """Higher runs first; more than 50 is for administrators."""
    keep_background: bool = True
    transcript: TextFile | None = None
    """What is said, in the source language; for one upload only."""
    translations: dict[Tag, TextFile] = Field(default_factory=dict, max_length=50)
    """Target language to subtitles that replace its translation; for one upload only."""
    voices: dict[Tag, Chosen] = Field(default_factory=dict, max_length=50)
    """Target language to the voice of all its lines, as `ENGINE VOICE`; for others than the targets it means nothing."""


@router.get("/ui/upload")
def upload_page(desk: Desk, visitor: Writer) -> HTMLResponse:
    """The page that uploads videos and asks for dubs."""
    return HTMLResponse(
        pages.render(
            "upload.html",
            me=visitor.user,
            common=COMMON,
            tags=all_tags(),
            quality=desk.settings.quality,
            default_priority=DEFAULT_PRIORITY,
            voices=voice_pages.defaults(desk, visitor),
        )
    )


@router.post("/ui/upload")
async def send_form(request: Request, desk: Desk, visitor: Writer) -> Response:
    """The page's form: a job for each upload. Its script asks for JSON and gets them. Raises as `order`."""
    async with (await bounded(request)).form(max_files=60, max_fields=200) as form:
        new = await _from_form(form)
    made = await asyncio.to_thread(order, desk, visitor, new, request.headers.get("idempotency-key"))
    if not is_api(request):
        return RedirectResponse("/ui/jobs?view=mine", 303)
    facts = [
        {"id": job.id, "state": job.state.shown, "title": pages.title(job), "targets": list(job.request["targets"])}
        for job, _ in made
    ]
    return JSONResponse({"jobs": facts}, 201 if any(fresh for _, fresh in made) else 200)


def order(desk: Office, visitor: Visitor, new: NewDub, key: str | None = None) -> list[tuple[Job, bool]]:
    """Submit a job for each upload; False marks those that the idempotency key had made before. Blocks.

    Raises UsageError, LanguageError, SubtitleError, ForbiddenError, NotFoundError, UploadUnfinishedError, IdempotencyError.
    """
    targets = _checked(new, visitor.actor)
    uploads = [desk.store.upload(visitor.user.id, upload_id) for upload_id in dict.fromkeys(new.uploads)]
    for upload in uploads:
        if not upload.whole:
            raise UploadUnfinishedError(name=upload.name, received=upload.received, size=upload.size)
    voices = {tag: new.voices[tag] for tag in targets if tag in new.voices}
    made = []
    for number, upload in enumerate(uploads):
        film = take(desk, upload)
        request = DubRequest(
            source=film,
            targets=targets,
            # a folder for each user: dubs of the same film lie in the same folder, which is not for others to see
            output_dir=desk.settings.output_dir / visitor.user.name,
            source_language=new.source_language,
            quality=new.quality,
            transcript=kept(film, "transcript", new.transcript),
            translations={tag: path for tag, text in new.translations.items() if (path := kept(film, tag, text))},
            keep_background=new.keep_background,
            engines={f"speak:{tag}": chosen.partition(" ")[0] for tag, chosen in voices.items()},
            voices={f"{tag}:*": chosen.partition(" ")[2] for tag, chosen in voices.items()},
        )
        made.append(
            desk.intake.submit(
                visitor.actor,
                orders.to_json(request),
                targets=targets,
                priority=new.priority,
                cost=cost_of(upload.size * 8 // BITS_PER_MS, len(targets)),
                key=key if key is None or len(uploads) == 1 else f"{key}.{number}",
            )
        )
    return made


def take(desk: Office, upload: Upload) -> Path:
    """Move a whole upload to where jobs find it, once. Raises NotFoundError."""
    source, film = desk.uploads / upload.id, desk.films / upload.id / film_name(upload.name)
    if not film.exists():
        film.parent.mkdir(parents=True, exist_ok=True)
        try:
            moved = film.with_name(f".{upload.id}.part")
            shutil.move(source, moved)  # the output may be another disk
            with moved.open("rb") as file:
                os.fsync(file.fileno())  # from here on nobody can send it again
            moved.replace(film)
        except FileNotFoundError:
            if not film.exists():  # else the same request came twice at once
                raise NotFoundError(what=f"file of the upload {upload.name}") from None
    if not upload.taken:
        desk.store.take_upload(upload.id)
    return film


def film_name(name: str) -> str:
    """The name of an upload as the name of a file."""
    suffix = PurePath(name).suffix
    if not re.fullmatch(r"\.[A-Za-z0-9]{1,8}", suffix):
        return safe_name(name)
    return safe_name(name.removesuffix(suffix)) + suffix.lower()


def kept(film: Path, what: str, given: TextFile | None) -> Path | None:
    """Write a text down beside its film, named by what it holds: a repeated request names the same file."""
    if given is None:
        return None
    data = given.text.encode()
    kind = subtitles.detect(given.text) or "txt"
    path = film.parent / ".texts" / f"{what}-{hashlib.sha256(data).hexdigest()[:16]}.{kind}"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, data)
    return path


def _checked(new: NewDub, actor: Actor) -> tuple[str, ...]:
    """The target languages, each once, of a request that makes sense."""
    targets = tuple(dict.fromkeys(new.targets))
    if not new.uploads:
        raise UsageError(detail="No upload was named")
    if not targets:
        raise UsageError(detail="No target language was chosen")
    spoken = [] if new.source_language == "auto" else [new.source_language]
    for tag in (*targets, *new.translations, *spoken):
        if not is_tag(tag):
            raise LanguageError(detail=f"{tag!r} is not a language tag such as es, pt-BR or zh")
    for tag in new.translations:
        if tag not in targets:
            raise UsageError(detail=f"There is a translation into {tag}, which is not among the target languages")
    for tag in targets:
        if spoken and tag.split("-")[0] == spoken[0].split("-")[0] and tag not in new.translations:
            raise LanguageError(detail=f"The speech is already in {spoken[0]}; choose another language than {tag}")
    if new.priority > DEFAULT_PRIORITY and not actor.sees_all:
        raise ForbiddenError(role=actor.role, action=f"ask for a priority above {DEFAULT_PRIORITY}")
    if len(set(new.uploads)) > 1 and (new.transcript or new.translations):
        raise UsageError(detail="A transcript or a translation belongs to one video; send the others without")
    check_texts(new.transcript, new.translations)
    return targets


def check_texts(transcript: TextFile | None, translations: Mapping[str, TextFile]) -> None:
    """Read what was given now, so that a bad file is refused at once. Raises SubtitleError."""
    if (given := transcript) is not None:
        if subtitles.detect(given.text) is not None:
            subtitles.parse_subtitles(given.text.encode(), given.name)
        elif not any(char.isalnum() for char in subtitles.decode_text(given.text.encode(), given.name)):
            raise SubtitleError(name=given.name, detail="it has no words")
    for given in translations.values():
        subtitles.parse_subtitles(given.text.encode(), given.name)


async def _from_form(form: FormData) -> NewDub:
    """The form's fields: checked languages, other tags with spaces or commas, `transcript`, `translation:TAG`."""
    others = re.split(r"[\s,]+", str(form.get("other", "")).strip())
    facts = {
        "uploads": [str(value) for value in form.getlist("upload")],
        "targets": [str(value) for value in form.getlist("target")] + [tag for tag in others if tag],
        "keep_background": form.get("keep_background") is not None,
        "transcript": await _text(form.get("transcript")),
        "translations": {
            key.partition(":")[2]: text
            for key, value in form.multi_items()
            if key.startswith("translation:") and (text := await _text(value)) is not None
        },
        "voices": {key.partition(":")[2]: str(value) for key, value in form.items() if key.startswith("voice:")},
    }
    facts |= {key: form[key] for key in ("source_language", "quality", "priority") if form.get(key)}
    try:
        return NewDub.model_validate(facts)
    except ValidationError as error:
        raise _usage(error) from error


async def _text(given: UploadFile | str | None) -> TextFile | None:
    """A text file of the form; None where none was chosen. Raises SubtitleError."""
    if not isinstance(given, UploadFile) or not given.filename:
        return None
    name = PurePath(given.filename).name[:255] or "subtitles"
    return TextFile(name=name, text=subtitles.decode_text(await given.read(subtitles.MAX_BYTES + 1), name))


def _usage(error: ValidationError) -> UsageError:
    first = error.errors()[0]
    return UsageError(detail=f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
