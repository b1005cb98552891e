"""The speech API over HTTP, in the shape of OpenAI's: the `import_path` of the application `api` in serve configs.

Requests share batches with jobs: each is a lane of its own at the same engine replicas.
"""

# Without `from __future__ import annotations`: Serve and FastAPI look at the classes in signatures.

import asyncio
import logging
import uuid
from typing import Annotated, Any, Literal

from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application
from starlette.exceptions import HTTPException

from cluster.app import APP as ENGINES
from cluster.http_formats import Heard, TranscriptFormat, render
from cluster.http_gate import HEALTH, Gate, digest, error_body
from cluster.http_speech import Desk, RequestError
from dubbing import config
from dubbing.errors import DubbingError, SettingsError
from dubbing.media.encode import FORMATS

log = logging.getLogger(__name__)
APP = "api"
NAME = "SpeechApi"
SLACK = 1 << 16
"""Bytes of a request besides the file."""


class ApiArgs(BaseModel):
    """`args` of the application in a serve config: what one replica of the API puts up with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_upload_mb: int = Field(25, ge=1, le=1024)
    """Serve's proxy holds a body in memory, so films belong into the queue instead."""
    max_duration_min: int = Field(60, ge=1, le=1440)
    max_text_chars: int = Field(4096, ge=1)
    max_concurrent: int = Field(32, ge=1)
    """Requests served at once; one more gets 429."""


class SpeechRequest(BaseModel):
    """Body of /v1/audio/speech; fields that only other services know are ignored."""

    model: str
    input: str = Field(min_length=1)
    voice: str = "alloy"
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "mp3"
    speed: float = Field(1.0, ge=0.25, le=4.0)
    language: str | None = Field(None, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")
    """BCP-47 tag, which OpenAI does not have: default is the voice's language."""
    stream_format: Literal["audio"] = "audio"


def build(args: ApiArgs) -> Application:
    """The application of a serve config. Raises SettingsError without DUBBING_SERVE_API_KEY."""
    return assemble(args, config.load(), {})


def assemble(args: ApiArgs, settings: config.Settings, overrides: dict[str, Any]) -> Application:
    """The application with the options of its deployment, as `Deployment.options` takes them."""
    if settings.serve_api_key is None:
        expected = "the speech API wants a key that its callers send"
        fix = "Set it to 16 characters or more, such as the output of: openssl rand -hex 32"
        raise SettingsError(key="DUBBING_SERVE_API_KEY", value=None, expected=expected, fix=fix)
    key_digest, safe = digest(settings.serve_api_key), settings.commercial_safe

    def application() -> Any:
        desk = Desk(commercial_safe=safe, max_minutes=args.max_duration_min)
        return Gate(create(desk, args), key_digest, (args.max_upload_mb << 20) + SLACK, args.max_concurrent)

    # More than the gate lets in must reach it: it refuses in OpenAI's words, which Serve's own queue would not.
    room = {"max_ongoing_requests": 4 * args.max_concurrent}
    deployment = serve.deployment(serve.ingress(application)()).options(**{"name": NAME, **room, **overrides})
    return deployment.bind()


def create(desk: Desk, limits: ApiArgs) -> FastAPI:
    """The API itself, without the gate."""
    app = FastAPI(title="Dubbing Pipeline", docs_url=None, redoc_url=None, openapi_url=None)
    _add_errors(app)
    _add_uploads(app, desk)

    @app.post("/v1/audio/speech")
    async def speech(asked: SpeechRequest) -> Response:
        if len(asked.input) > limits.max_text_chars:
            detail = f"The input has {len(asked.input)} characters, and at most {limits.max_text_chars} are spoken"
            raise RequestError(detail=detail, param="input")
        if not asked.input.strip():
            raise RequestError(detail="The input has nothing to speak", param="input")
        body = await desk.speak(
            asked.input,
            model=asked.model,
            voice=asked.voice,
            language=asked.language,
            speed=asked.speed,
            form=asked.response_format,
            lane=_lane(),
        )
        return Response(body, media_type=FORMATS[asked.response_format].media_type)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(name, kind) for name, kind in await desk.models()]}

    @app.get("/v1/models/{name}")
    async def model(name: str) -> JSONResponse:
        kinds = dict(await desk.models())
        if name not in kinds:
            return JSONResponse(
                error_body(
                    f"The model {name} does not exist here.", "invalid_request_error", "model_not_found", "model"
                ),
                404,
            )
        return JSONResponse(_model(name, kinds[name]))

    @app.get(HEALTH)
    async def healthz() -> JSONResponse:
        overview = (await asyncio.to_thread(serve.status)).applications.get(ENGINES)
        state = str(overview.status.value) if overview else "NOT_STARTED"
        return JSONResponse({"engines": state}, 200 if state == "RUNNING" else 503)

    return app


def _add_uploads(app: FastAPI, desk: Desk) -> None:
    @app.post("/v1/audio/transcriptions")
    async def transcriptions(
        file: Annotated[UploadFile, File()],
        model: Annotated[str, Form()],
        language: Annotated[str | None, Form(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")] = None,
        response_format: Annotated[TranscriptFormat, Form()] = "json",
        details: Annotated[list[Literal["word", "segment"]], Form(alias="timestamp_granularities[]")] = ["segment"],  # noqa: B006 - FastAPI copies it
        stream: Annotated[Literal["false", "False"], Form()] = "false",
    ) -> Response:
        heard = await desk.hear(file.file, file.filename or "", model, language, _lane())
        return _answer(heard, response_format, "transcribe", details)

    @app.post("/v1/audio/translations")
    async def translations(
        file: Annotated[UploadFile, File()],
        model: Annotated[str, Form()],
        language: Annotated[str | None, Form(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")] = None,
        response_format: Annotated[TranscriptFormat, Form()] = "json",
        translation_model: Annotated[str | None, Form()] = None,
    ) -> Response:
        lane = _lane()
        heard = await desk.hear(file.file, file.filename or "", model, language, lane)
        english = await desk.to_english(heard, translation_model, lane)
        return _answer(english, response_format, "translate", ["segment"])


def _answer(
    heard: Heard, form: TranscriptFormat, task: Literal["transcribe", "translate"], details: list[Any]
) -> Response:
    body, media_type = render(heard, form, task, details)
    return JSONResponse(body) if isinstance(body, dict) else PlainTextResponse(body, media_type=media_type)


def _add_errors(app: FastAPI) -> None:
    """Make every error one in OpenAI's shape."""

    def answer(status: int, message: str, code: str | None, param: str | None = None) -> JSONResponse:
        kind = "server_error" if status >= 500 else "invalid_request_error"
        return JSONResponse(error_body(message, kind, code, param), status)

    @app.exception_handler(DubbingError)
    async def known(request: Request, error: DubbingError) -> JSONResponse:
        if error.http_status >= 500:
            log.error("%s failed: %s", request.url.path, error.message)
        # 422 is how pages tell a file that cannot be used; clients of this API expect 400.
        status = 400 if error.http_status == 422 else error.http_status
        return answer(status, f"{error.message}.", error.code, getattr(error, "param", None))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"][1:])
        return answer(400, f"{param or 'body'}: {first['msg']}.", "invalid_value", param or None)

    @app.exception_handler(HTTPException)
    async def unrouted(request: Request, error: HTTPException) -> JSONResponse:
        codes = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}
        return answer(error.status_code, str(error.detail), codes.get(error.status_code))

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> JSONResponse:
        """The request's border; the server logs the traceback."""
        return answer(500, "The server had an error while it processed your request.", "internal")


def _model(name: str, kind: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "dubbing-pipeline", "kind": kind}


def _lane() -> str:
    return f"api-{uuid.uuid4().hex[:12]}"
