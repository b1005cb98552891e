"""A chat service of our own on a free port: it speaks the protocol, translates by rule, and is rude on request."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-test-4711"
MODEL = "tiny-chat"


@dataclass
class Asked:
    """One request as the service saw it."""

    document: dict[str, Any]
    """The JSON of the first user message."""
    messages: list[dict[str, str]]
    key: str
    body: dict[str, Any]

    @property
    def ids(self) -> list[int]:
        """Ids that the last message asks for."""
        if len(self.messages) > 2:
            wanted = self.messages[-1]["content"].split("for ids ", 1)[1].split(" only", 1)[0]
            return [int(number) for number in wanted.split(",")]
        return [line["id"] for line in self.document["lines"]]

    @property
    def texts(self) -> dict[int, str]:
        """Texts that are asked for, by id."""
        return {line["id"]: line["text"] for line in self.document["lines"] if line["id"] in self.ids}


@dataclass
class Raw:
    """An answer below the protocol."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    """Say nothing until the client goes or the service stops."""


def good(asked: Asked) -> str:
    """`Hello.` to es becomes `ES(Hello.)`, one entry for each line that was asked for."""
    target = asked.document["target"].upper()
    return json.dumps({"lines": [{"id": number, "text": f"{target}({text})"} for number, text in asked.texts.items()]})


Script = Callable[[Asked], "str | Raw"]


class ChatServer:
    """Answers by a script: a function from a request to the model's words, or to something ruder."""

    def __init__(self, script: Script) -> None:
        self.script, self.asked = script, []  # type: list[Asked]
        self.listing = Raw(body=json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}))
        self.looked_up: list[tuple[str, str]] = []
        """(path, key) of each question for the models."""
        self.stopping = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.handle(self)

            def do_GET(self) -> None:
                outer.list_models(self)

            def log_message(self, *_: object) -> None:
                """Tests have no use for an access log."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._lock = threading.Lock()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        messages = body["messages"]
        asked = Asked(json.loads(messages[1]["content"]), messages, handler.headers.get("Authorization", ""), body)
        with self._lock:
            self.asked.append(asked)
        if handler.path != "/v1/chat/completions":
            said: str | Raw = Raw(404, '{"error": {"message": "no such path"}}')
        else:
            said = self.script(asked)
        if isinstance(said, str):
            choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
            said = Raw(body=json.dumps({"object": "chat.completion", "model": body["model"], "choices": [choice]}))
        if said.hang:
            self.stopping.wait()
            return
        data = said.body.encode()
        handler.send_response(said.status)
        for name, value in {"Content-Length": str(len(data)), **said.headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    def list_models(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer by `listing`, whatever is asked for."""
        self.looked_up.append((handler.path, handler.headers.get("Authorization", "")))
        data = self.listing.body.encode()
        handler.send_response(self.listing.status)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@contextmanager
def chat_server(script: Script = good) -> Iterator[ChatServer]:
    """A running service."""
    server = ChatServer(script)
    server.start()
    try:
        yield server
    finally:
        server.stop()
