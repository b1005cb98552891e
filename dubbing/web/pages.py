"""From a job to HTML: what the templates need, and how numbers read."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from babel import Locale
from babel.dates import format_date
from jinja2 import Environment, PackageLoader, StrictUndefined

from dubbing import __version__
from dubbing.errors import NotFoundError
from dubbing.jobs import TERMINAL, Job, State
from dubbing.languages import native_name
from dubbing.web import words
from dubbing.web.catalogues import LANGUAGES, Words, decimal, gettext, language, ngettext, noop, pgettext
from dubbing.web.charts import Loudness, Timeline, loudness, timeline
from dubbing.web.report import Bar, Target, bars
from dubbing.web.results import File, Results, original_head

LOG_LINES = 200
LOG_BYTES = 256 * 1024
_TASK = re.compile("([0-9a-f]+)/([0-9a-f]+)")
STATES = Words(
    {
        "queued": noop("Waiting"),
        "running": noop("Running"),
        "paused": noop("Paused"),
        "done": noop("Done"),
        "done_with_warnings": noop("Done, with warnings"),
        "failed": noop("Failed"),
        "cancelled": noop("Cancelled"),
    }
)
PEOPLE = Words(
    {
        "viewer": noop("viewer, who looks"),
        "user": noop("user, who makes dubs"),
        "admin": noop("administrator"),
    }
)
"""What a role means, by its name."""
KINDS = Words(
    {
        "transcribe": noop("Recognises"),
        "align": noop("Times the words"),
        "translate": noop("Translates"),
        "speak": noop("Speaks"),
        "separate": noop("Parts speech from background"),
        "diarize": noop("Tells speakers apart"),
    }
)
ROLES = Words(
    {
        ".mp4": noop("for phones and browsers"),
        ".m4a": noop("for phones and browsers"),
        ".mkv": noop("every language of the latest run, and the original"),
        ".mka": noop("every language of the latest run, and the original"),
        ".srt": noop("subtitles"),
        ".vtt": noop("subtitles of this page"),
        ".log": noop("what the job said"),
        "report.json": noop("all of this page's figures, and more"),
        "timeline.json": noop("where the time went, as a Chrome trace"),
        "peaks.json": noop("how loud the original is over time"),
        "loudness.json": noop("how loud the original and the dubs are, in LUFS over time"),
        "lines": noop("every line with its place and its problems"),
        "edits": noop("lines changed by hand"),
    }
)
"""What a file is for, by suffix, name, or beginning of the name."""


@dataclass(frozen=True, slots=True)
class Dub:
    """One language of a job, as the page shows it."""

    section: str
    """Its part of the page, an HTML id."""
    tag: str
    media: File | None
    """MP4 or M4A; None when the format of the pictures allows none."""
    subtitles: File | None
    """WebVTT."""
    target: Target | None
    """None for a language of an earlier run, which the report no longer holds."""
    bars: list[Bar]
    timeline: Timeline | None
    """None when there are no lines to read, as in jobs of earlier versions."""
    loudness: Loudness | None
    """None when it was not measured, as in jobs of earlier versions."""
    original: bool
    """Whether a browser can play `media` with the original's sound."""
    chosen: bool


def dubs(job: Results, language: str | None) -> list[Dub]:
    """The languages of a job, one of them chosen: `language`, else the first. Raises NotFoundError for one it lacks."""
    if language is not None and language not in job.targets:
        raise NotFoundError(what=f"dub of {job.name} into {language}")
    chosen = language or next(iter(job.targets), None)
    found = []
    for position, tag in enumerate(job.targets, 1):
        target = job.report.targets.get(tag) if job.report else None
        media = job.of_language(tag, ".mp4", ".m4a")
        found.append(
            Dub(
                section=f"dub-{position}",
                tag=tag,
                media=media,
                subtitles=job.of_language(tag, ".vtt"),
                target=target,
                bars=bars(target.rates.histogram) if target else [],
                timeline=timeline(job, tag) if target else None,
                loudness=loudness(job, tag) if target else None,
                original=media is not None and original_head(media) is not None,
                chosen=tag == chosen,
            )
        )
    return found


def source_subtitles(job: Results) -> File | None:
    """WebVTT of what the original says."""
    return job.of_language(job.report.source.language, ".vtt") if job.report else None


def log_tail(job: Results | None) -> list[str]:
    """The last lines of what a job said; a rare line that is longer than the part that is read is cut."""
    file = job.files.get("job.log") if job else None
    if file is None:
        return []
    with file.path.open("rb") as log:
        log.seek(max(0, file.size - LOG_BYTES))
        lines = log.read(LOG_BYTES).decode(errors="replace").splitlines()
    return lines[1:][-LOG_LINES:] if file.size > LOG_BYTES else lines[-LOG_LINES:]


def task_address(dashboard: str | None, job: Job) -> str | None:
    """Where the Ray dashboard shows the task of a job's latest run; None while it has none, or no dashboard is known."""
    task = _TASK.fullmatch(str((job.progress or {}).get("task", "")))
    return f"{dashboard.rstrip('/')}/#/jobs/{task[1]}/tasks/{task[2]}" if dashboard and task else None


def require(results: Results | None) -> Results:
    """The results of a job that has some. Raises NotFoundError."""
    if results is None:
        raise NotFoundError(what="result of this job yet")
    return results


def render(template: str, **values: Any) -> str:
    """A page; everything but the templates themselves is escaped."""
    return _environment.get_template(template).render(**values)


def clock(seconds: float) -> str:
    """`1:05`, or `1:01:05` from an hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: int) -> str:
    """Bytes as people read them, in powers of 1000."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{number(value, int(value < 9.95 and units[0] != 'B'))} {units[0]}"


def number(value: float | None, digits: int = 0) -> str:
    """A measured value with a true minus sign; a dash where there is none (silence has no loudness)."""
    if value is None or not math.isfinite(value):
        return "–"
    return decimal(value, digits)


def drift(ms: float | None) -> str:
    """How far a line starts from its time."""
    if ms is None:
        return "–"
    if not round(ms):
        return gettext("on time")
    return (gettext("%(ms)s ms late") if ms > 0 else gettext("%(ms)s ms early")) % {"ms": number(abs(ms))}


def role(file: File) -> str:
    """What a file is for."""
    known = (file.path.suffix, file.name, file.name.partition(".")[0])
    text = ROLES[next(name for name in known if name in ROLES)]
    return f"{native_name(file.tag)}, {text}" if file.tag else text


def file_address(job: Job, file: File) -> str:
    """Where a result is served."""
    return f"/ui/jobs/{job.id}/files/{quote(file.name, safe='')}"


def title(job: Job) -> str:
    """What a user calls the job: the name of its source."""
    return str(job.request.get("title") or PurePath(str(job.request.get("source", ""))).name or job.id)


def far(job: Job) -> str:
    """How far a running job is: the stage it is in and its share, such as `speak 40 %`; empty for all others."""
    stages = (job.progress or {}).get("stages", ()) if job.state is State.RUNNING else ()
    now = next((stage for stage in stages if stage["done"] < stage["total"]), None)
    return f"{words.stage(now['stage'])} {100 * now['done'] // now['total']} %" if now else ""


def moment(ms: int | None) -> str:
    """A time of the database as people read it, in the server's zone."""
    if not ms:
        return "–"
    time = datetime.fromtimestamp(ms / 1000).astimezone()
    return f"{format_date(time, 'medium', Locale.parse(language(), sep='-'))}, {time:%H:%M}"


_environment = Environment(
    extensions=["jinja2.ext.i18n"],
    loader=PackageLoader("dubbing.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.install_gettext_callables(gettext, ngettext, newstyle=True, pgettext=pgettext)  # type: ignore[attr-defined]
_environment.filters |= {
    "clock": clock,
    "size": size,
    "number": number,
    "drift": drift,
    "native": native_name,
    "title": title,
    "moment": moment,
    "far": far,
    "message": words.message,
    "advice": words.advice,
    "stage": words.stage,
    "problem": words.problem,
    "action": words.action,
    "remark": words.remark,
}
_environment.globals |= {
    "version": __version__,
    "states": STATES,
    "kinds": KINDS,
    "roles": PEOPLE,
    "file_address": file_address,
    "role": role,
    "terminal": TERMINAL,
    "State": State,
    "language": language,
    "languages": LANGUAGES,
    "stages": words.STAGES,
    "role_names": words.ROLES,
    "qualities": words.QUALITIES,
    "conditions": words.CONDITIONS,
}
