"""The jobs of a server as commands see them: a Desk over /api/v1."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from dubbing import subtitles
from dubbing.config import Settings
from dubbing.desk import Facts, Order
from dubbing.errors import FileMissingError, NotFoundError, SettingsError, UsageError
from dubbing.line_edits import Change
from dubbing.remote.downloads import Fetcher
from dubbing.remote.server import Server
from dubbing.remote.uploads import Sender, Told
from dubbing.remote_errors import ServerForeignError
from dubbing.types import DubRequest
from dubbing.upload_errors import UploadUnfinishedError

LOOK_S = 1.0
PAGE = 200
"""Jobs in one answer, at most."""
NOTES = Path("~/.local/state/dubbing")
"""Where uploads are remembered when DUBBING_STATE_DIR does not say: never in the folder the command happens to be in."""
LOCAL_USER = "local"
_Model = TypeVar("_Model", bound=BaseModel)
_ID = re.compile(r"[0-9a-f]{32}")


class _Told(BaseModel):
    """A job as the API tells it, as far as commands need it, in the order of the facts."""

    model_config = ConfigDict(extra="ignore")

    id: str
    priority: int
    attempt: int
    crash_count: int
    asked: str | None
    progress: list[dict[str, Any]]
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    created_ms: int
    started_ms: int | None
    finished_ms: int | None
    run_at_ms: int
    state: str
    user_id: str
    source: str
    targets: list[str]


class _Page(BaseModel):
    jobs: list[_Told]
    cursor: str | None


class _User(BaseModel):
    id: str
    name: str


class _Users(BaseModel):
    users: list[_User]


class _Queue(BaseModel):
    reason: str
    in_charge: dict[str, str]
    alive: list[str]
    jobs: dict[str, int]
    settings: dict[str, int]
    warnings: list[str]


class _Lines(BaseModel):
    target: str
    version: str
    voices: list[dict[str, Any]]
    lines: list[dict[str, Any]]


class _Me(BaseModel):
    id: str
    name: str
    role: str


class RemoteDesk:
    """A Desk over a server; see there. Every method raises also the errors of remote_errors."""

    look_s = LOOK_S

    def __init__(self, server: Server, settings: Settings, told: Told) -> None:
        """`told` hears how far an upload is."""
        self._server, self._settings, self._told = server, settings, told
        self._notes = (settings.state_dir or NOTES).expanduser() / "sending"
        self._names: dict[str, str] | None = None

    @property
    def reason(self) -> str:
        """See Desk."""
        return self._server.url

    def submit(self, order: Order) -> Facts:
        """See Desk: sends the file first, which the same command resumes."""
        if order.user != LOCAL_USER:
            raise UsageError(detail="At a server a job belongs to the user of the API key; leave --user out")
        if order.request.output_dir != self._settings.output_dir.resolve():
            raise UsageError(detail="The server keeps the results; `dub fetch` takes --output-dir")
        film, fields = order.request.source, _fields(order)
        sender = Sender(self._server, self._notes, self._told)
        upload, offset = sender.begin(film)
        fields["upload"] = upload
        if offset < film.stat().st_size:
            with contextlib.suppress(
                UploadUnfinishedError
            ):  # so a request that is refused is refused before the film is sent
                self._order(fields)
            sender.send(film, upload, offset)
        job = self._order(fields)
        sender.forget(film)
        return job

    def _order(self, fields: Mapping[str, Any]) -> Facts:
        """Ask for the job. A request whose answer was lost makes no second one when the command is given again."""
        said = json.dumps(fields, sort_keys=True).encode()
        key = {"Idempotency-Key": hashlib.sha256(said).hexdigest()}
        return self._facts(self._server.json("POST", "/jobs", data=fields, headers=key))

    def job(self, job_id: str) -> Facts:
        """See Desk."""
        return self._facts(self._server.json("GET", _job(job_id)))

    def jobs(self, *, limit: int, beginning: str = "") -> Sequence[Facts]:
        """See Desk."""
        found: list[_Told] = []
        query: dict[str, object] = {"beginning": beginning} if beginning else {}
        while True:
            query["limit"] = min(PAGE, limit - len(found))
            page = self._read(_Page, self._server.json("GET", "/jobs", query=query))
            found += page.jobs
            if page.cursor is None or not page.jobs or len(found) >= limit:
                return [self._told_of(job) for job in found]
            query["cursor"] = page.cursor

    def cancel(self, job_id: str) -> Facts:
        """See Desk."""
        return self._act(job_id, "cancel")

    def retry(self, job_id: str) -> Facts:
        """See Desk."""
        return self._act(job_id, "retry")

    def pause(self, job_id: str) -> Facts:
        """See Desk."""
        return self._act(job_id, "pause")

    def resume(self, job_id: str) -> Facts:
        """See Desk."""
        return self._act(job_id, "resume")

    def switch(self, user: str | None, *, paused: bool) -> None:
        """See Desk; for administrators."""
        self._server.json("POST", f"/queue/{'pause' if paused else 'resume'}", data={"user": user})

    def queue(self) -> Mapping[str, Any]:
        """See Desk; for administrators."""
        return self._read(_Queue, self._server.json("GET", "/queue")).model_dump()

    def lines(self, job: Facts, tag: str) -> Mapping[str, Any]:
        """See Desk."""
        found = self._read(_Lines, self._server.json("GET", _dub(job, tag))).model_dump()
        for line in found["lines"]:
            line.pop("clip", None)
        return found

    def change_lines(self, job: Facts, tag: str, changes: Mapping[int, Change]) -> None:
        """See Desk."""
        lines = {number: change.model_dump(mode="json", exclude_unset=True) for number, change in changes.items()}
        self._server.json("PATCH", _dub(job, tag), data={"lines": lines})

    def bring(self, job: Facts, names: Sequence[str], folder: Path, told: Callable[[str, int, int], None]) -> None:
        """See Desk: downloads; what was cut is resumed."""
        Fetcher(self._server, told).fetch(str(job["id"]), list(names), folder)

    def _act(self, job_id: str, action: str) -> Facts:
        return self._facts(self._server.json("POST", f"{_job(job_id)}/{action}"))

    def _facts(self, told: Any) -> Facts:
        return self._told_of(self._read(_Told, told))

    def _told_of(self, job: _Told) -> Facts:
        facts = job.model_dump() | {"progress": {"stages": job.progress} if job.progress else None}
        facts["user_id"] = self._name(job)
        return {"user" if key == "user_id" else key: value for key, value in facts.items()}

    def _name(self, job: _Told) -> str:
        """Who owns a job; empty where that is not ours to know."""
        if self._names is None:
            me = self._read(_Me, self._server.json("GET", "/me"))
            self._names = {me.id: me.name}
            if me.role == "admin":
                users = self._read(_Users, self._server.json("GET", "/users")).users
                self._names |= {user.id: user.name for user in users}
        return self._names.get(job.user_id, "")

    def _read(self, kind: type[_Model], told: Any) -> _Model:
        try:
            return kind.model_validate(told)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"])) or "anything"
            raise ServerForeignError(url=self._server.url, detail=f"its answer lacks {where}") from error


@contextmanager
def open_remote(settings: Settings, told: Told) -> Iterator[RemoteDesk]:
    """The desk of the server of DUBBING_URL. Nothing is sent before the first question. Raises SettingsError."""
    assert settings.url is not None
    try:
        urlsplit(settings.url).port  # noqa: B018 - reading it checks it
    except ValueError as error:
        expected = f"it must be an address such as https://dub.example.net ({error})"
        raise SettingsError(key="DUBBING_URL", value=settings.url, expected=expected, fix="Correct it.") from error
    if settings.api_key is None:
        raise SettingsError(
            key="DUBBING_API_KEY",
            value=None,
            expected=f"{settings.url} wants an API key",
            fix="Make one on the settings page of dubbing-web and put DUBBING_API_KEY=... into .env.secrets.",
        )
    server = Server(settings.url, settings.api_key)
    try:
        yield RemoteDesk(server, settings, told)
    finally:
        server.close()


def _job(job_id: str) -> str:
    """Where a job is. Raises NotFoundError for what cannot be an id."""
    if not _ID.fullmatch(job_id):
        raise NotFoundError(what=f"job {job_id}")
    return f"/jobs/{job_id}"


def _dub(job: Facts, tag: str) -> str:
    return f"{_job(str(job['id']))}/lines/{quote(tag, safe='')}"


def _fields(order: Order) -> dict[str, Any]:
    """The body of `POST /jobs`, but for the upload. Raises FileMissingError, SubtitleError."""
    request: DubRequest = order.request
    return {
        "targets": order.targets,
        "source_language": request.source_language,
        "quality": None if request.quality == "auto" else request.quality,
        "priority": order.priority,
        "start_ms": request.start_ms,
        "end_ms": request.end_ms,
        "audio_track": request.audio_track,
        "keep_background": request.keep_background,
        "run_at_ms": order.run_at_ms,
        "speakers": request.speakers,
        "engines": request.engines,
        "voices": request.voices,
        "transcript": _text(request.transcript) if request.transcript else None,
        "translations": {tag: _text(path) for tag, path in request.translations.items()},
        "glossary": request.glossary,
    }


def _text(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise FileMissingError(name=path.name)
    with path.open("rb") as file:
        data = file.read(subtitles.MAX_BYTES + 1)
    return {"name": path.name[:255], "text": subtitles.decode_text(data, path.name)}
