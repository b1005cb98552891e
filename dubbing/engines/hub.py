"""The model hub, as Hugging Face speaks HTTP: what a repository holds, and its files as streams.

The hub's own client is not used: it fetches over a protocol of its own where it can, tries again by itself for minutes,
checks sizes but no hashes, and looks for tokens and caches in the home directory. What is needed of it are two addresses.
"""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from dubbing import __version__
from dubbing.errors import DubbingError
from dubbing.model_errors import (
    HubDownError,
    HubMissingError,
    HubRefusedError,
)

TIMEOUT_S = 30.0
"""Silence of this long, at the start or in the middle, is the end of a download."""
BLOCK = 1 << 20
_LIST_BYTES = 16 << 20
_ABSENT = ("RepoNotFound", "RevisionNotFound", "EntryNotFound")
"""Of the header X-Error-Code: the hub answers 401 to everybody who may not know whether a repository exists."""
_STRANGE = (http.client.HTTPException, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class HubFile:
    """What the hub says of one file."""

    size: int
    """Bytes."""
    sha256: str
    """64 hex digits; empty for small files, which the hub knows by `blob` alone."""
    blob: str
    """Git's name of the content, 40 hex digits; empty when the hub did not tell."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one commit."""

    commit: str
    """40 hex digits."""
    files: Mapping[str, HubFile]
    """By name."""


class Download:
    """A file on its way."""

    def __init__(self, response: Any, hub: str, start: int) -> None:
        self._response, self._hub = response, hub
        self.start = start
        """Position of the first byte that comes: 0 when the hub does not continue downloads."""

    def blocks(self) -> Iterator[bytes]:
        """The bytes. Raises HubDownError when the hub falls silent; an early end is an end."""
        while True:
            try:
                block = self._response.read(BLOCK)
            except http.client.IncompleteRead as error:
                block = error.partial
            except _STRANGE as error:
                raise HubDownError(hub=self._hub, detail=_words(error)) from error
            if not block:
                return
            yield block


class Hub:
    """A hub at an address. Calls block."""

    def __init__(self, address: str, token: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        """`address` such as https://huggingface.co; the token goes to that host alone."""
        self.address = address.rstrip("/")
        self._token, self._timeout_s = token, timeout_s
        self._opener = urllib.request.build_opener(_Redirects)

    def listing(self, repo: str, revision: str) -> Listing:
        """What `repo` holds at a commit, branch or tag. Raises HubDownError, HubRefusedError or HubMissingError."""
        place = f"{self.address}/api/models/{quote(repo)}/revision/{quote(revision, safe='')}?blobs=true"
        with self._open(place, repo, f"{repo} at {revision}", {}) as response:
            try:
                told = json.loads(response.read(_LIST_BYTES))
                return Listing(_hex(told["sha"], 40), {str(f["rfilename"]): _file(f) for f in told["siblings"]})
            except (KeyError, TypeError, *_STRANGE) as error:
                raise HubDownError(hub=self.address, detail=f"its list of {repo} cannot be understood") from error

    @contextmanager
    def download(self, repo: str, commit: str, name: str, start: int = 0) -> Iterator[Download]:
        """A file from byte `start` on, or from 0 when the hub prefers that. Raises as `listing` does."""
        place = f"{self.address}/{quote(repo)}/resolve/{quote(commit, safe='')}/{quote(name)}"
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._open(place, repo, f"{name} in {repo} at {commit}", headers) as response:
            given = response.headers.get("Content-Range", "")
            continues = response.status == http.client.PARTIAL_CONTENT
            if continues and not given.startswith(f"bytes {start}-"):
                raise HubDownError(hub=self.address, detail=f"asked for byte {start} on, it sent {given[:60]!r}")
            yield Download(response, self.address, start if continues else 0)

    @contextmanager
    def _open(self, place: str, repo: str, what: str, headers: Mapping[str, str]) -> Iterator[Any]:
        # Compressed answers would have other sizes and hashes than the files.
        wanted = {"User-Agent": f"dubbing-pipeline/{__version__}", "Accept-Encoding": "identity", **headers}
        if self._token:
            wanted["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(place, headers=wanted)  # noqa: S310 - the setting allows http and https only
        try:
            response = self._opener.open(request, timeout=self._timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error, repo, what) from error
        except urllib.error.URLError as error:
            raise HubDownError(hub=self.address, detail=_words(error.reason)) from error
        except _STRANGE as error:
            raise HubDownError(hub=self.address, detail=_words(error)) from error
        with response:
            yield response

    def _refusal(self, error: urllib.error.HTTPError, repo: str, what: str) -> DubbingError:
        reason = error.headers.get("X-Error-Code", "")
        if error.code == http.client.NOT_FOUND or reason in _ABSENT:
            return HubMissingError(hub=self.address, what=what)
        if error.code in {http.client.UNAUTHORIZED, http.client.FORBIDDEN}:
            detail = f"HTTP {error.code}{', its licence must be accepted first' if reason == 'GatedRepo' else ''}"
            return HubRefusedError(hub=self.address, repo=repo, detail=detail)
        return HubDownError(hub=self.address, detail=f"HTTP {error.code} for {what}")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Large files lie on other hosts, which must not see the token; nothing leads from https to http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """The request that follows a redirection."""
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme not in {"http", "https"} or (old.scheme == "https" and new.scheme == "http"):
            raise urllib.error.URLError(f"it redirects to {new.scheme}://{new.netloc}")
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        # urllib keeps the headers of the first request but for those that describe a body.
        if following is not None and (old.scheme, old.netloc) != (new.scheme, new.netloc):
            following.remove_header("Authorization")
        return following


def _file(told: Mapping[str, Any]) -> HubFile:
    lfs, size = told.get("lfs") or {}, int(told["size"])
    if size < 0:
        raise ValueError(size)
    sha256 = _hex(lfs["sha256"], 64) if lfs.get("sha256") else ""
    return HubFile(size, sha256, _hex(told["blobId"], 40) if told.get("blobId") and not sha256 else "")


def _hex(told: Any, digits: int) -> str:
    """A hash as the hub told it; it becomes part of file names, so nothing else will do. Raises ValueError."""
    if not re.fullmatch(f"[0-9a-f]{{{digits}}}", str(told)):
        raise ValueError(told)
    return str(told)


def _words(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "it is silent"
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200] or type(error).__name__
