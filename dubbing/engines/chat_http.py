"""The wire to an OpenAI-compatible chat service: one request with a deadline, and when to ask again.

The standard library's client is enough here, so translating by a service needs nothing beside the base installation.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import math
import random
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from dubbing.errors import EngineError, ServiceDownError, ServiceRefusedError, UsageError

MOST_BYTES = 4 << 20
"""Of an answer; translations of a few lines are a thousandth of it."""
PROBE_TIMEOUT_S = 10.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 20.0
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
"""Statuses that pass by themselves; the last ones are those of proxies."""
_LIVES = frozenset({200, 404, 405, 429, 501})
"""Answers to a question for the models: a list, none to be had, or too much to do."""

Message = Mapping[str, str]
"""{"role": ..., "content": ...}"""


@dataclass(frozen=True, slots=True)
class Reply:
    """How one request ended."""

    status: int
    """HTTP status; 0 when there was none."""
    body: bytes = b""
    retry_after: str = ""
    """The header, as it came."""
    trouble: str = ""
    """What went wrong before there was a status."""

    @property
    def words(self) -> str:
        """What the service said, short enough for a message."""
        if self.trouble:
            return self.trouble
        try:
            said: Any = json.loads(self.body)
            error = said.get("error", said) if isinstance(said, dict) else said
            said = error.get("message", error) if isinstance(error, dict) else error
        except ValueError:
            said = self.body.decode(errors="replace")
        return f"status {self.status}: {' '.join(str(said).split())[:200]}"


class ChatService:
    """A chat service at an address. Any number of threads may ask at once."""

    def __init__(
        self, name: str, url: str, model: str, api_key: str | None, *, timeout_s: float, patience_s: float
    ) -> None:
        """`timeout_s` bounds one request, `patience_s` all tries of one question. Raises UsageError for a bad address."""
        try:
            parts = urlsplit(url)
            self._port = parts.port
        except ValueError:
            parts, self._port = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(detail="DUBBING_CHAT_URL is not an address such as https://host/v1")
        if api_key and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
            raise UsageError(detail="DUBBING_CHAT_API_KEY holds a character that no key has")
        self._name, self._parts, self.model, self._key = name, parts, model, api_key
        self.host = parts.hostname
        self._timeout_s, self._patience_s = timeout_s, patience_s
        self._closed = threading.Event()
        self._temperature: dict[str, float] = {"temperature": 0.0}

    def ask(self, messages: Sequence[Message]) -> str:
        """The service's answer.

        Raises ServiceRefusedError (key, address, model), ServiceDownError when patience ends, EngineError when it
        cannot answer this question.
        """
        start, tries = time.monotonic(), 0
        while True:
            warmth = self._temperature
            reply = self._post({"model": self.model, "messages": list(messages), **warmth})
            if (content := self._content(reply, bool(warmth))) is not None:
                return content
            tries += 1
            left_s = self._patience_s - (time.monotonic() - start)
            wait_s = retry_in(reply, tries, left_s)
            if wait_s is None:
                raise ServiceDownError(name=self._name, detail=f"{self.host}, {tries} tries: {self._said(reply)}")
            if self._closed.wait(wait_s):
                raise EngineError(name=self._name, detail="it was shut down while it waited for the service")

    def probe(self) -> None:
        """Ask once for the list of models, free of charge; a service that has none answers all the same.

        Raises ServiceRefusedError for a key it does not take, ServiceDownError when it does not answer or not well.
        """
        reply = self._exchange("GET", "/models", None, min(PROBE_TIMEOUT_S, self._timeout_s))
        if reply.status in _LIVES:
            return
        kind = ServiceDownError if not reply.status or reply.status in _PASSING else ServiceRefusedError
        raise kind(name=self._name, detail=f"{self.host}, {self._said(reply)}")

    def close(self) -> None:
        """Wake who waits."""
        self._closed.set()

    def _content(self, reply: Reply, warmth: bool) -> str | None:
        """The text of a good answer; None when it is worth asking again."""
        if reply.status == 200:
            try:
                content = json.loads(reply.body)["choices"][0]["message"]["content"]
            except (ValueError, KeyError, IndexError, TypeError, RecursionError):
                return None
            return content if isinstance(content, str) else ""
        if reply.status == 400 and warmth and b"temperature" in reply.body:
            self._temperature = {}  # some models know one temperature only
            return None
        if reply.status in (400, 413, 422):
            raise EngineError(name=self._name, detail=f"{self.host} does not answer this question, {self._said(reply)}")
        if reply.status and reply.status not in _PASSING:
            raise ServiceRefusedError(name=self._name, detail=f"{self.host}, {self._said(reply)}")
        return None

    def _said(self, reply: Reply) -> str:
        """The service's words, without the key: some services repeat it."""
        return reply.words.replace(self._key, "***") if self._key else reply.words

    def _post(self, question: Mapping[str, Any]) -> Reply:
        return self._exchange("POST", "/chat/completions", json.dumps(question).encode(), self._timeout_s)

    def _exchange(self, method: str, where: str, sent: bytes | None, timeout_s: float) -> Reply:
        """One request below the service's address."""
        connection = self._connection(timeout_s)
        # A timeout of the socket bounds each read, not their sum: a service that drips would hold a line for hours.
        deadline = threading.Timer(timeout_s, _cut, [connection])
        deadline.daemon = True
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        path = f"{self._parts.path.rstrip('/')}{where}" + (f"?{self._parts.query}" if self._parts.query else "")
        begun = time.monotonic()
        try:
            deadline.start()
            connection.request(method, path, sent, headers)
            response = connection.getresponse()
            body = response.read(MOST_BYTES)
            if time.monotonic() - begun < timeout_s:
                return Reply(response.status, body, response.getheader("Retry-After") or "")
            return Reply(0, trouble=f"no answer within {timeout_s:g} s")
        except (OSError, http.client.HTTPException, ValueError) as error:
            late = time.monotonic() - begun >= timeout_s
            said = f"no answer within {timeout_s:g} s" if late else f"{type(error).__name__}: {error}"
            return Reply(0, trouble=said)
        finally:
            deadline.cancel()
            connection.close()

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        host, port = self.host, self._port
        if self._parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
        return http.client.HTTPConnection(host, port, timeout=timeout_s)


def retry_in(reply: Reply, tries: int, left_s: float) -> float | None:
    """Seconds to wait before the next try, with `left_s` of patience left; None to give up. What the service asks for counts."""
    if reply.status == 400:
        return 0.0
    asked_s = _asked_s(reply.retry_after)
    wait_s = min(_FIRST_WAIT_S * 2 ** (tries - 1), _LONGEST_WAIT_S) * (0.75 + random.random() / 2)  # noqa: S311
    wait_s = max(wait_s if asked_s is None else asked_s, 0.0)
    return wait_s if wait_s < left_s else None


def _asked_s(header: str) -> float | None:
    """Seconds of a Retry-After header, which gives seconds or a date; None when it says nothing sensible."""
    try:
        seconds = float(header)
        return seconds if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return email.utils.parsedate_to_datetime(header).timestamp() - time.time()
    except (TypeError, ValueError):
        return None


def _cut(connection: http.client.HTTPConnection) -> None:
    """End a connection under the thread that reads from it."""
    sock = connection.sock
    if sock is not None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has ended by itself
