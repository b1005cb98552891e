"""Single lines of a finished dub: read, listened to, changed by hand, and made anew. For people and for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, Query
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict, Field

from dubbing import line_edits
from dubbing.errors import NotFoundError
from dubbing.jobs import Job
from dubbing.line_edits import Change, LineEdit, LineRow, LinesFile
from dubbing.web import pages
from dubbing.web.headers import POLICY
from dubbing.web.identity import Anyone, Writer
from dubbing.web.office import Desk
from dubbing.web.results import Results

router = APIRouter(prefix="/ui/jobs/{job_id}/lines/{tag}")
api = APIRouter(prefix="/api/v1/jobs/{job_id}/lines/{tag}")
PAGE = 40
MOST_AT_ONCE = 1000
Show = Literal["all", "problems", "changed"]
_TYPED = {"text": "text", "voice": "voice", "speaker": "speaker"}
_TIMED = {"start": "start_ms", "end": "end_ms"}


class ShownLine(BaseModel):
    """One line, as the latest run left it and as the next will make it."""

    row: LineRow
    edit: LineEdit | None
    changed: bool
    """Whether the next run makes it anew."""

    @property
    def number(self) -> int:
        """From 1."""
        return self.row.line

    @property
    def locked(self) -> bool:
        """Whether it stays as it is."""
        return self.edit is not None and self.edit.locked

    @property
    def clock(self) -> tuple[str, str]:
        """Start and end as they can be typed."""
        start, end = line_edits.times(self.row, self.edit)
        return line_edits.clock(start), line_edits.clock(end)

    @property
    def seek_s(self) -> float:
        """Where to begin to listen in the film, seconds."""
        start_ms = self.row.start_ms if self.row.dub_start_ms is None else self.row.dub_start_ms
        return max(0, start_ms - 500) / 1000

    def value(self, name: str) -> Any:
        """What a field has now: the user's, else the job's."""
        wanted = getattr(self.edit, name) if self.edit else None
        return getattr(self.row, name) if wanted is None else wanted


class LineForm(BaseModel):
    """What the form of one line sends; an empty field takes a change back."""

    version: str
    line: int
    text: str = ""
    voice: str = ""
    speaker: str = ""
    start: str = ""
    end: str = ""
    locked: bool = False
    action: Literal["save", "redo", "reset"] = "save"
    show: Show = "all"
    page: int = Field(default=1, ge=1)

    def change(self, line: ShownLine) -> Change:
        """What differs from what the page showed. Raises LineEditError."""
        if self.action == "reset":
            taken_back: dict[str, Any] = dict.fromkeys((*_TYPED.values(), *_TIMED.values()))
            return line_edits.change_of(self.line, taken_back | {"locked": False, "redo": False})
        fields: dict[str, Any] = {}
        for name, target in _TYPED.items():
            typed = " ".join(getattr(self, name).split())
            if typed != " ".join(str(line.value(target)).split()):
                fields[target] = typed or None
        for (name, target), shown in zip(_TIMED.items(), line_edits.times(line.row, line.edit), strict=True):
            typed = getattr(self, name).strip()
            value = line_edits.milliseconds(typed, self.line) if typed else None
            if value != shown:
                fields[target] = value
        if self.locked != line.locked:
            fields["locked"] = self.locked
        if self.action == "redo":
            fields["redo"] = True
        return line_edits.change_of(self.line, fields)


class LinesPatch(BaseModel):
    """Changes of lines, all saved or none."""

    model_config = ConfigDict(extra="forbid")

    version: str | None = None
    """Of the edits the changes were made upon; None saves over whatever is there."""
    lines: dict[int, Change] = Field(min_length=1, max_length=MOST_AT_ONCE)
    """By line number, from 1."""


class _Dub:
    """One language of a job, line by line."""

    def __init__(self, desk: Desk, job: Job, tag: str) -> None:
        self.job, self.tag, self.results = job, tag, pages.require(desk.results(job))
        if tag not in job.request.get("targets", ()):
            raise NotFoundError(what=f"dub into {tag}")
        self.folder = folder_of(job)
        self.lines: LinesFile = line_edits.read_lines(self.folder, tag)
        edits, self.version = line_edits.read_edits(self.folder, tag)
        applying = line_edits.applying(self.lines, edits)
        self.shown = [
            ShownLine(row=row, edit=applying.get(row.line), changed=row.is_changed_by(applying.get(row.line)))
            for row in self.lines.lines
        ]

    def chosen(self, show: Show) -> list[ShownLine]:
        """The lines a filter lets through."""
        return [
            line
            for line in self.shown
            if show == "all" or (line.changed if show == "changed" else bool(line.row.problems))
        ]

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {
            "job": self.job.id,
            "target": self.tag,
            "version": self.version,
            "voices": [voice.model_dump() for voice in self.lines.voices],
            "lines": [
                line.row.model_dump(mode="json", exclude={"clip", "edit"})
                | {"edit": line.edit.wanted if line.edit else {}, "locked": line.locked, "changed": line.changed}
                | {"clip": f"{address(self.job, self.tag)}/{line.number}/clip" if line.row.clip else None}
                for line in self.shown
            ],
        }


def folder_of(job: Job) -> Path:
    """Where the job's results lie. Raises NotFoundError before it has ended once."""
    report = (job.result or {}).get("report")
    if not report:
        raise NotFoundError(what="result of this job yet")
    return Path(str(report)).parent


def address(job: Job, tag: str) -> str:
    """Where the lines of a dub are shown."""
    return f"/ui/jobs/{job.id}/lines/{quote(tag, safe='')}"


@router.get("")
def line_page(
    desk: Desk, visitor: Anyone, job_id: str, tag: str, show: Show = "all", page: Annotated[int, Query(ge=1)] = 1
) -> HTMLResponse:
    """Lines of a dub, a page at a time. Raises NotFoundError, EditsFileError."""
    job = desk.store.job(visitor.actor, job_id)
    dub = _Dub(desk, job, tag)
    chosen = dub.chosen(show)
    last = max(1, -(-len(chosen) // PAGE))
    page = min(page, last)
    mine = (visitor.user.id == job.user_id or visitor.actor.sees_all) and visitor.actor.role != "viewer"
    return HTMLResponse(
        pages.render(
            "lines.html",
            me=visitor.user,
            job=job,
            tag=tag,
            dub=dub,
            voices=dict.fromkeys(dub.lines.voice_ids, "") | {voice.id: voice.name for voice in dub.lines.voices},
            address=address(job, tag),
            lines=chosen[(page - 1) * PAGE : page * PAGE],
            count=len(chosen),
            changed=sum(line.changed for line in dub.shown),
            show=show,
            page=page,
            last=last,
            mine=mine,
            **_player(dub.results, tag),
        )
    )


def _player(results: Results, tag: str) -> dict[str, Any]:
    """What player.html needs."""
    dubs = [dub for dub in pages.dubs(results, None) if dub.tag == tag]
    return {
        "chosen": dubs[0] if dubs else None,
        "original": pages.source_subtitles(results),
        "sound": "dub",
        "source": results.report.source.language if results.report else "",
        "peaks": results.files.get("peaks.json"),
    }


def _own(desk: Desk, visitor: Writer, job_id: str, tag: str) -> _Dub:
    """A dub that the visitor may change; of others there is none, whatever they sent."""
    return _Dub(desk, desk.store.own_job(visitor.actor, job_id), tag)


Own = Annotated[_Dub, Depends(_own)]


@router.post("")
def save(desk: Desk, visitor: Writer, dub: Own, form: Annotated[LineForm, Form()]) -> RedirectResponse:
    """Save one line. Raises StaleEditError, LineEditError, LineLockedError, NotFoundError, also for shared jobs."""
    dub.lines.row(form.line)
    wanted = form.change(dub.shown[form.line - 1])
    line_edits.change(dub.folder, dub.tag, {form.line: wanted}, version=form.version)
    desk.store.audit(visitor.user.id, "line_edited", f"{dub.job.id} {dub.tag} {form.line}")
    return RedirectResponse(f"{address(dub.job, dub.tag)}?show={form.show}&page={form.page}#line-{form.line}", 303)


@router.post("/redo")
def redo(desk: Desk, visitor: Writer, dub: Own) -> RedirectResponse:
    """Put the job back in line; it makes only what changed. Raises NotFoundError, StateConflictError."""
    desk.intake.retry(visitor.actor, dub.job.id)
    return RedirectResponse(f"/ui/jobs/{dub.job.id}", 303)


@router.api_route("/{number}/clip", methods=["GET", "HEAD"])
def clip(desk: Desk, visitor: Anyone, job_id: str, tag: str, number: int) -> FileResponse:
    """The sound of one line, WAV. Raises NotFoundError."""
    dub = _Dub(desk, desk.store.job(visitor.actor, job_id), tag)
    return FileResponse(
        line_edits.clip_of(dub.folder, tag, number),
        media_type="audio/wav",
        filename=f"line-{number}.{tag}.wav",
        content_disposition_type="inline",
        headers={"Content-Security-Policy": POLICY},
    )


@api.get("")
def lines_json(desk: Desk, visitor: Anyone, job_id: str, tag: str) -> dict[str, Any]:
    """All lines of a dub with the edits that wait for the next run. Raises NotFoundError, EditsFileError."""
    return _Dub(desk, desk.store.job(visitor.actor, job_id), tag).as_json()


@api.patch("")
def patch_lines(desk: Desk, visitor: Writer, dub: Own, patch: LinesPatch) -> dict[str, Any]:
    """Save changes of lines for the next run of the job. Raises as `save`."""
    line_edits.change(dub.folder, dub.tag, patch.lines, version=patch.version)
    desk.store.audit(
        visitor.user.id, "line_edited", f"{dub.job.id} {dub.tag} {','.join(map(str, sorted(patch.lines)))}"
    )
    return _Dub(desk, dub.job, dub.tag).as_json()
