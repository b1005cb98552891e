"""The API in OpenAPI's words: the routes below /api/v1, and no other."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import FastAPI

from dubbing import __version__
from dubbing.web import api, api_account, api_queue, live
from dubbing.web.api_models import Problem

TEXT = """Jobs, their results and their progress.

Send an API key as `Authorization: Bearer ...`; the pages' own session works too. Errors are problem+json (RFC 9457)
with a `code` that does not change. Times are milliseconds, languages BCP-47 tags."""
PROBLEM = {"$ref": "#/components/responses/Problem"}


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document; made once."""
    app = FastAPI(title="Dubbing Pipeline", version=__version__, description=TEXT)
    for room in (api, api_account, api_queue, live):
        app.include_router(room.router)
    made = app.openapi()
    made["paths"] = {path: routes for path, routes in made["paths"].items() if path.startswith("/api/v1/")}
    parts = made["components"]
    for name in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(name, None)
    parts["schemas"]["Problem"] = Problem.model_json_schema()
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    parts["responses"] = {"Problem": {"description": "The request was refused; the code says why.", "content": content}}
    parts["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "An API key."},
        "session": {"type": "apiKey", "in": "cookie", "name": "dub_session", "description": "A login of the pages."},
    }
    made["security"] = [{"key": []}, {"session": []}]
    for routes in made["paths"].values():
        for operation in routes.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = PROBLEM
    return made
