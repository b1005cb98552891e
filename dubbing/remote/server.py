"""The one door to the server of DUBBING_URL: requests with the API key, and answers or the errors they stand for.

http.client is enough for one request after another, never follows a redirect by itself, and loads in a moment.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

# every error that a server may tell of, so that `retold` knows its class and with it the exit code
from dubbing import (
    __version__,
    access_errors,  # noqa: F401
    api_errors,  # noqa: F401
    line_errors,  # noqa: F401
    model_errors,  # noqa: F401
    queue_errors,  # noqa: F401
    upload_errors,  # noqa: F401
)
from dubbing.errors import DubbingError, NotFoundError, retold
from dubbing.remote_errors import (
    ApiKeyError,
    ServerForeignError,
    ServerMovedError,
    ServerUnreachableError,
    ServerUntrustedError,
)

CONNECT_S = 10.0
ANSWER_S = 60.0
"""How long nothing may come, or be taken, before the server is given up."""
PATIENCE_S = 30.0
"""How long a server that has answered before may be away: the time it takes to start again."""
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 4.0
MOST_BYTES = 64 << 20
"""Of an answer that is held in memory; a list of lines of a long film has some megabytes."""
LONGEST_WORDS = 100
"""Of a plain text that is repeated in a message."""
SAFE = ("GET", "HEAD")
PASSING = (502, 503, 504)
"""What a proxy says while the server behind it starts."""
NO_PAGE = "There is no such page here"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request came to."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = b""


class Server:
    """A dubbing-web, asked over one connection. Close it."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        patience_s: float = PATIENCE_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        self._secure, self._host, self._base = parts.scheme == "https", parts.netloc, parts.path
        self._key = key
        self._patience_s, self._sleep = patience_s, sleep
        self._connection: http.client.HTTPConnection | None = None
        self._met = False
        """Whether it has answered yet: a server that never did is given up at once."""

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        data: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Ask for JSON. A request that changes something is repeated only with an Idempotency-Key.

        Raises what the server's problem stands for, and the errors of remote_errors.
        """
        sent = dict(headers or {})
        body = None
        if data is not None:
            body = json.dumps(data).encode()
            sent["Content-Type"] = "application/json"
        address = f"{path}?{urlencode(query)}" if query else path
        answer = self.ask(method, address, sent, body, repeat=method in SAFE or "Idempotency-Key" in sent)
        try:
            return json.loads(answer.body)
        except ValueError:
            raise self._foreign(answer.status, answer.headers) from None

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        repeat: bool,
    ) -> Answer:
        """One request below /api/v1, its answer in memory. `repeat` says that sending it again does no harm.

        Raises as `json`.
        """

        def read(response: http.client.HTTPResponse) -> Answer:
            content = response.read(MOST_BYTES + 1)
            if len(content) > MOST_BYTES:
                raise ServerForeignError(url=self.url, detail="its answer has no end")
            return Answer(response.status, _lower(response), content)

        for wait in self._waits(repeat):
            try:
                with self.open(method, path, headers, body, fresh=not repeat) as response:
                    return read(response)
            except ServerUnreachableError:
                if wait is None:
                    raise
                self._sleep(wait)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if wait is None:
                    raise self._unreachable(error) from error
                self._sleep(wait)
        raise AssertionError("the last wait is None")

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        fresh: bool = False,
    ) -> Iterator[http.client.HTTPResponse]:
        """One request, once; its good answer, to be read. `fresh` does not trust a connection that was idle.

        Raises as `json`.
        """
        if fresh:
            self.close()
        response = self._send(method, path, headers, body)
        try:
            self._check(method, path, response)
            yield response
        finally:
            if not response.isclosed():
                self.close()  # what is left of the answer would be taken for the next one

    def _send(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> http.client.HTTPResponse:
        sent = {
            "Authorization": f"Bearer {self._key}",
            "Accept": "application/json",
            "User-Agent": f"dub/{__version__}",
        }
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._connection.request(method, f"{self._base}/api/v1{path}", body, {**sent, **headers})
            response = self._connection.getresponse()
        except http.client.RemoteDisconnected as error:
            self.close()
            raise self._unreachable(error) from error
        except ssl.SSLEOFError as error:
            self.close()
            raise self._unreachable(error) from error
        except ssl.SSLError as error:
            self.close()
            reason = (error.reason or str(error)).replace("_", " ").lower()
            raise ServerUntrustedError(url=self.url, detail=getattr(error, "verify_message", reason)) from error
        except http.client.HTTPException as error:
            self.close()
            raise ServerForeignError(url=self.url, detail="it does not speak HTTP") from error
        except OSError as error:
            self.close()
            raise self._unreachable(error) from error
        self._met = True
        return response

    def _connect(self) -> http.client.HTTPConnection:
        if self._secure:
            context = ssl.create_default_context()
            made: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, timeout=CONNECT_S, context=context
            )
        else:
            made = http.client.HTTPConnection(self._host, timeout=CONNECT_S)
        made.connect()
        assert made.sock is not None
        made.sock.settimeout(ANSWER_S)
        return made

    def _check(self, method: str, path: str, response: http.client.HTTPResponse) -> None:
        """Raise what an answer other than a good one stands for."""
        status, headers = response.status, _lower(response)
        if 300 <= status < 400:
            place = urlsplit(headers.get("location", ""))
            raise ServerMovedError(url=self.url, place=place._replace(query="", fragment="").geturl() or "nowhere")
        if status < 300:
            return
        if method == "HEAD" and status == NotFoundError.http_status:
            raise NotFoundError(what="such upload")  # an answer to HEAD has no words of its own
        body = response.read(MOST_BYTES)
        told = _problem(headers, body)
        if told is None:
            if status in PASSING:
                raise ServerUnreachableError(url=self.url, detail=f"a proxy before it answers {status}")
            raise self._foreign(status, headers, body)
        if status == ApiKeyError.http_status:
            raise ApiKeyError(url=self.url)
        error = retold({**told, "message": told["title"], "hint": told.get("detail", "")})
        if status == http.client.METHOD_NOT_ALLOWED or error.message == NO_PAGE:
            raise ServerForeignError(url=self.url, detail=f"it has no /api/v1{path.partition('?')[0]}")
        raise error

    def _foreign(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> ServerForeignError:
        kind = headers.get("content-type", "").partition(";")[0] or "nothing to read"
        words = body[:LONGEST_WORDS].decode(errors="replace").partition("\n")[0].strip() if kind == "text/plain" else ""
        said = f"it answers {status} with {kind}"
        return ServerForeignError(url=self.url, detail=f"{said}, {words!r}" if words else said)

    def _unreachable(self, error: Exception) -> DubbingError:
        words = str(error.strerror or error) if isinstance(error, OSError) else str(error)
        if isinstance(error, TimeoutError):
            words = "it does not answer in time"
        return ServerUnreachableError(url=self.url, detail=words or type(error).__name__)

    def _waits(self, repeat: bool) -> Iterator[float | None]:
        """How long to wait after each attempt that failed; None after the last one."""
        waited, wait = 0.0, FIRST_WAIT_S
        while repeat and waited < self._patience_s:
            yield wait if self._met else None
            waited, wait = waited + wait, min(2 * wait, LONGEST_WAIT_S)
        yield None


def _lower(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


def _problem(headers: Mapping[str, str], body: bytes) -> dict[str, Any] | None:
    """The problem+json of an answer; None when it has none."""
    if headers.get("content-type", "").partition(";")[0] != "application/problem+json":
        return None
    try:
        told = json.loads(body)
    except ValueError:
        return None
    return told if isinstance(told, dict) and isinstance(told.get("title"), str) else None
