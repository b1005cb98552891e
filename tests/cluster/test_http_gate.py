"""The gate of the speech API, and the shape of its answers, without Ray."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from cluster.http import ApiArgs, assemble
from cluster.http_formats import Heard, pieces, render
from cluster.http_gate import Gate, digest
from dubbing.config import Settings
from dubbing.errors import SettingsError
from dubbing.subtitles import parse_subtitles
from dubbing.types import Segment, Word

KEY = "k" * 32


@dataclass
class Inside:
    """What stands behind the gate: reads the body, and answers once it may."""

    may: asyncio.Event = field(default_factory=asyncio.Event)
    bodies: list[bytes] = field(default_factory=list)
    entered: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.entered += 1
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.bodies.append(body)
        await self.may.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"served"})


async def ask(
    gate: Gate, headers: Mapping[str, str], blocks: list[bytes] | None = None, path: str = "/v1/models"
) -> tuple[int, dict[str, str], bytes]:
    async def body() -> AsyncIterator[Message]:
        for block in blocks or [b""]:
            yield {"type": "http.request", "body": block, "more_body": True}
        yield {"type": "http.request", "body": b"", "more_body": False}

    sent: list[Message] = []
    parts = body()

    async def send(message: Message) -> None:
        sent.append(message)

    lines = [(k.lower().encode(), v.encode()) for k, v in headers.items()]
    await gate({"type": "http", "path": path, "headers": lines}, lambda: anext(parts), send)
    told = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    return sent[0]["status"], told, b"".join(message.get("body", b"") for message in sent[1:])


def opened(**limits: int) -> tuple[Gate, Inside]:
    inside = Inside()
    inside.may.set()
    return Gate(inside, digest(KEY), **{"max_body": 100, "max_concurrent": 2, **limits}), inside


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer"}, {"authorization": f"Bearer {KEY}x"}, {"authorization": f"Basic {KEY}"}]
)
def test_without_the_key_nothing_of_a_request_is_read(headers: dict[str, str]) -> None:
    async def scenario() -> None:
        gate, inside = opened()
        status, _, body = await ask(gate, headers, [b"secret"])
        assert (status, inside.entered) == (401, 0)
        assert json.loads(body)["error"]["code"] == "invalid_api_key"
        assert (await ask(gate, headers, path="/healthz"))[0] == 200

    asyncio.run(scenario())


def test_a_body_that_is_announced_as_too_large_is_refused_before_it_comes() -> None:
    async def scenario() -> None:
        gate, inside = opened()
        key = {"authorization": f"Bearer {KEY}"}
        for length in ("101", "-1", "many"):
            status, _, body = await ask(gate, {**key, "content-length": length})
            assert (status, json.loads(body)["error"]["code"]) == (413, "request_too_large")
        assert inside.entered == 0
        assert (await ask(gate, {**key, "content-length": "100"}, [b"x" * 100]))[0] == 200

    asyncio.run(scenario())


def test_a_body_that_nobody_announced_is_counted() -> None:
    async def scenario() -> None:
        gate, inside = opened()
        with pytest.raises(HTTPException) as caught:
            await ask(gate, {"authorization": f"Bearer {KEY}"}, [b"x" * 60, b"x" * 60])
        assert caught.value.status_code == 413
        assert (gate.running, inside.bodies) == (0, [])

    asyncio.run(scenario())


def test_one_request_too_many_is_told_to_come_again() -> None:
    async def scenario() -> None:
        inside = Inside()
        gate = Gate(inside, digest(KEY), 100, 2)
        key = {"authorization": f"Bearer {KEY}"}
        served = [asyncio.ensure_future(ask(gate, key)) for _ in range(2)]
        while inside.entered < 2:
            await asyncio.sleep(0)
        status, headers, body = await ask(gate, key)
        assert (status, headers["retry-after"], json.loads(body)["error"]["code"]) == (429, "1", "rate_limit_exceeded")
        inside.may.set()
        assert [answer[0] for answer in await asyncio.gather(*served)] == [200, 200]
        assert (await ask(gate, key))[0] == 200

    asyncio.run(scenario())


def test_without_a_key_there_is_no_api() -> None:
    with pytest.raises(SettingsError, match="DUBBING_SERVE_API_KEY"):
        assemble(ApiArgs.model_validate({}), Settings(), {})


WORDS = (Word(100, 500, "Good", 0.9), Word(500, 900, "morning.", 0.9))
HEARD = Heard((Segment(100, 900, "Good morning.", WORDS, confidence=0.9), Segment(1000, 2000, "Bye.")), "en", 2500)


def test_every_format_holds_the_same_words() -> None:
    bodies = {form: render(HEARD, form, "transcribe", ["segment", "word"]) for form in FORMS}
    assert bodies["json"][0] == {"text": "Good morning. Bye."}
    assert bodies["text"] == ("Good morning. Bye.\n", "text/plain")
    for form in ("srt", "vtt"):
        cues = parse_subtitles(str(bodies[form][0]).encode())
        assert [(cue.start_ms, cue.end_ms, cue.text) for cue in cues] == [
            (100, 900, "Good morning."),
            (1000, 2000, "Bye."),
        ]
    verbose: Any = bodies["verbose_json"][0]
    assert (verbose["duration"], verbose["language"], verbose["task"]) == (2.5, "en", "transcribe")
    assert verbose["words"][1] == {"word": "morning.", "start": 0.5, "end": 0.9}
    assert [(s["start"], s["end"], s["avg_logprob"]) for s in verbose["segments"]] == [
        (0.1, 0.9, -0.1054),
        (1.0, 2.0, None),
    ]


FORMS: tuple[Any, ...] = ("json", "text", "srt", "vtt", "verbose_json")


@given(st.text(max_size=400), st.integers(1, 60))
def test_a_text_in_pieces_loses_no_word_and_no_piece_is_too_long(text: str, limit: int) -> None:
    found = pieces(text, limit)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(0 < len(piece) <= limit for piece in found)


def test_sentences_stay_whole_where_they_fit() -> None:
    assert pieces("One. Two two two. Three is a longer one, cut at words.", 20) == [
        "One. Two two two.",
        "Three is a longer",
        "one, cut at words.",
    ]
