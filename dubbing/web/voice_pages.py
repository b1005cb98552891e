"""The voices that this server offers, samples of them, and which one each user wants for his own dubs."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Form, Query
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse

from dubbing import voicebook
from dubbing.errors import NotFoundError
from dubbing.languages import COMMON, native_name
from dubbing.types import CLONE, Voice
from dubbing.voicebook import Voicebook
from dubbing.web import pages
from dubbing.web.identity import Anyone, Visitor, Writer
from dubbing.web.office import Desk, Office

router = APIRouter(prefix="/ui/voices")
PREFERENCE = "voice:"
"""A user's preference of that name and a language tag holds `ENGINE VOICE`."""
Language = Annotated[str, Form(max_length=35)]
SAID = {
    "kept": "New dubs of yours begin with this voice; the page that starts them shows it.",
    "forgotten": "New dubs of yours get the engine's own choice of voices again.",
    "busy": "Too many samples are waited for; try again in a moment.",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A voice on the page."""

    voice: Voice
    key: str
    """Names its sample and its place on the page."""
    options: str
    """What to write behind `dub run` and `dub submit`."""
    sample: bool
    waits: bool
    """Whether its sample was asked for and is not spoken yet."""
    chosen: bool

    @property
    def can_be_heard(self) -> bool:
        """Whether there can be a sample: a clone is somebody else's in every dub."""
        return self.voice.id != CLONE


@router.get("")
def voices_page(
    desk: Desk, visitor: Anyone, language: Annotated[str, Query(max_length=35)] = "", said: str = ""
) -> HTMLResponse:
    """Every voice of one language. Raises NotFoundError for a language that nobody here speaks."""
    book = voicebook.read(desk.settings.state)
    tags = sorted(book.voices, key=lambda tag: native_name(tag).casefold())
    language = language or next((tag for tag in COMMON if tag in book.voices), next(iter(tags), ""))
    if tags and language not in book.voices:
        raise NotFoundError(what=f"voice for {language}")
    wanted = desk.store.preferences(visitor.user.id, PREFERENCE).get(language, "")
    engines: dict[str, list[Row]] = {}
    for voice in book.voices.get(language, ()):
        engines.setdefault(voice.engine, []).append(_row(desk, voice, wanted))
    return HTMLResponse(
        pages.render(
            "voices.html",
            me=visitor.user,
            tags=tags,
            shown=language,
            engines=engines,
            works=any(one.serves for one in desk.store.present()),
            said=SAID.get(said, ""),
        )
    )


@router.post("/default")
def choose(
    desk: Desk,
    visitor: Writer,
    language: Language,
    engine: Annotated[str, Form(max_length=80)] = "",
    voice: Annotated[str, Form(max_length=100)] = "",
) -> RedirectResponse:
    """Keep a voice for the visitor's dubs into a language; without a voice, forget his. Raises NotFoundError."""
    if voice:
        found = voicebook.read(desk.settings.state).voice(language, engine, voice)
        desk.store.prefer(visitor.user.id, PREFERENCE + language, f"{found.engine} {found.id}")
    else:
        desk.store.prefer(visitor.user.id, PREFERENCE + language, None)
    return RedirectResponse(f"/ui/voices?language={language}&said={'kept' if voice else 'forgotten'}", 303)


@router.post("/samples/{voice_key}")
def ask_for_sample(desk: Desk, visitor: Writer, voice_key: str) -> RedirectResponse:
    """Have the worker speak a sample. Raises NotFoundError."""
    voice = _of_key(voicebook.read(desk.settings.state), voice_key)
    state = desk.settings.state
    busy = not voicebook.sample_of(state, voice).exists() and not voicebook.wish(state, voice)
    said = "&said=busy" if busy else ""
    return RedirectResponse(f"/ui/voices?language={voice.language}{said}#v-{voice_key}", 303)


@router.api_route("/samples/{voice_key}", methods=["GET", "HEAD"])
def sample(desk: Desk, visitor: Anyone, voice_key: str) -> FileResponse:
    """A sample, once it was spoken. Raises NotFoundError."""
    path = voicebook.sample_of(desk.settings.state, _of_key(voicebook.read(desk.settings.state), voice_key))
    if not path.is_file():
        raise NotFoundError(what="sample of this voice yet")
    return FileResponse(path, media_type="audio/wav", headers={"Cache-Control": "private, max-age=3600"})


def defaults(desk: Office, visitor: Visitor) -> list[Voice]:
    """The voices that the visitor keeps for his dubs, of those that this server offers."""
    book = voicebook.read(desk.settings.state)
    found = []
    for language, chosen in desk.store.preferences(visitor.user.id, PREFERENCE).items():
        engine, _, voice_id = chosen.partition(" ")
        found += [one for one in book.voices.get(language, ()) if (one.engine, one.id) == (engine, voice_id)]
    return found


def _of_key(book: Voicebook, key: str) -> Voice:
    for voices in book.voices.values():
        for voice in voices:
            if voicebook.key_of(voice) == key and voice.id != CLONE:
                return voice
    raise NotFoundError(what="such voice")


def _row(desk: Office, voice: Voice, wanted: str) -> Row:
    state = desk.settings.state
    return Row(
        voice=voice,
        key=voicebook.key_of(voice),
        options=f"--engine speak={voice.engine} --voice {shlex.quote(voice.id)}",
        sample=voicebook.sample_of(state, voice).is_file(),
        waits=voicebook.is_wished(state, voice),
        chosen=wanted == f"{voice.engine} {voice.id}",
    )
