"""Is the server ready, and what does it do: `/readyz` for whoever decides by it, `/metrics` for Prometheus."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from dubbing import heartbeat
from dubbing.access_errors import NotLoggedInError
from dubbing.errors import DiskFullError, DubbingError, ForbiddenError, MachineError
from dubbing.web.admission import is_loopback
from dubbing.web.identity import address_of
from dubbing.web.office import Desk, Office
from dubbing.web.traffic import BUCKETS_S

router = APIRouter(include_in_schema=False)
LEAST_FREE_MB = 1024
"""Free disk under which no new video should come in."""


@router.api_route("/readyz", methods=["GET", "HEAD"])
def readyz(office: Desk, request: Request) -> Response:
    """200 when videos can come in and jobs run, else 503; what is wrong, as text or, if asked for, JSON."""
    found = examine(office)
    status = 503 if any(found.values()) else 200
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"ready": status == 200, "checks": {k: v or "ok" for k, v in found.items()}}, status)
    return PlainTextResponse("".join(f"{name}: {trouble or 'ok'}\n" for name, trouble in found.items()), status)


def _watcher(request: Request) -> None:
    """Lets in this machine, and administrators with their API keys."""
    if is_loopback(address_of(request)):
        return
    visitor = request.app.state.office.identity.visitor(request)
    if visitor is None:
        raise NotLoggedInError
    if visitor.user.role != "admin":
        raise ForbiddenError(role=visitor.user.role, action="watch this server")


@router.get("/metrics")
def metrics(office: Desk, _: Annotated[None, Depends(_watcher)]) -> PlainTextResponse:
    """Everything there is to count, in Prometheus' text format; no label names a user or a job."""
    lines = [*_traffic(office), *_jobs(office), *_readiness(office)]
    return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


# --- readiness ------------------------------------------------------------------------------------------------------


def examine(office: Office) -> dict[str, str]:
    """Check -> what is wrong, empty when nothing is. Says no path and no address: strangers may ask."""
    checks: Mapping[str, Callable[[Office], None]] = {
        "database": lambda office: office.store.ping(),
        "queue": lambda office: office.choice.queue.ping(),
        "dispatcher": _dispatcher,
        "uploads": _uploads,
        "disk": _disk,
    }
    found = {}
    for name, check in checks.items():
        try:
            check(office)
        except MachineError as error:
            found[name] = str(error.facts.get("public") or "it does not answer")
        else:
            found[name] = ""
    return found


def _dispatcher(office: Office) -> None:
    age = heartbeat.age_s(office.settings.state)
    if age is None:
        raise MachineError(detail="", public="none runs yet; jobs wait")
    if age > heartbeat.FRESH_S:
        raise MachineError(detail="", public=f"it was last heard of {age:.0f} s ago; jobs wait")


def _uploads(office: Office) -> None:
    if not os.access(_nearest(office.uploads), os.W_OK | os.X_OK):
        raise MachineError(detail="", public="their folder cannot be written")


def _disk(office: Office) -> None:
    folder = _nearest(office.settings.output_dir)
    free = shutil.disk_usage(folder).free // 2**20
    if free < LEAST_FREE_MB:
        raise DiskFullError(folder=folder, free_mb=free, need_mb=LEAST_FREE_MB, public=f"{free} MB are free")


def _nearest(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


# --- figures --------------------------------------------------------------------------------------------------------


def _family(name: str, kind: str, text: str, samples: Iterable[tuple[str, object]]) -> Iterator[str]:
    yield f"# HELP dubbing_{name} {text}"
    yield f"# TYPE dubbing_{name} {kind}"
    yield from (f"dubbing_{name}{labels} {value}" for labels, value in samples)


def _labels(**labels: object) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def _traffic(office: Office) -> Iterator[str]:
    traffic = office.traffic
    yield from _family(
        "http_requests_total",
        "counter",
        "Answers that ended.",
        (
            (_labels(method=method, route=route, status=status), count)
            for (method, route, status), count in sorted(traffic.requests.copy().items())
        ),
    )
    yield from _family(
        "http_requests_open",
        "gauge",
        "Requests under way, streams among them.",
        ((_labels(method=method), count) for method, count in sorted(traffic.open.copy().items())),
    )
    yield "# HELP dubbing_http_first_byte_seconds Time until the first byte of an answer."
    yield "# TYPE dubbing_http_first_byte_seconds histogram"
    for route, counts in sorted(traffic.seconds.copy().items()):
        total = 0
        for limit, count in zip((*BUCKETS_S, "+Inf"), tuple(counts), strict=True):
            total += count
            yield f"dubbing_http_first_byte_seconds_bucket{_labels(route=route, le=limit)} {total}"
        yield f"dubbing_http_first_byte_seconds_sum{_labels(route=route)} {traffic.sums[route] / 1e6:.6f}"
        yield f"dubbing_http_first_byte_seconds_count{_labels(route=route)} {total}"


def _jobs(office: Office) -> Iterator[str]:
    """What the rows say; nothing while the database does not answer."""
    store = office.store
    try:
        states, bands, uploads = store.counts(), store.waiting_by_band(), store.uploads_in_flight()
    except DubbingError:
        return
    yield from _family("jobs", "gauge", "Jobs by state.", ((_labels(state=s), n) for s, n in sorted(states.items())))
    waiting = ((_labels(band=band), count) for band, count in bands.items())
    yield from _family("queue_depth", "gauge", "Jobs that wait, by band; 0 is served first.", waiting)
    yield from _family("uploads_in_flight", "gauge", "Files that are arriving.", [("", uploads)])


def _readiness(office: Office) -> Iterator[str]:
    samples = ((_labels(check=name), int(not trouble)) for name, trouble in examine(office).items())
    yield from _family("ready", "gauge", "1 where a check of /readyz passes.", samples)
