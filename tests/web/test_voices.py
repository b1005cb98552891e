"""The page of voices, what a user keeps of it, and what the form for new dubs makes of that."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dubbing import orders, voicebook
from dubbing.engines import offered
from dubbing.types import CLONE, Voice
from tests.web.site import Client, Site
from tests.web.test_new_dub import SCRIPT, request_of, upload

BOOK = [
    *(Voice(f"es+{name}", "espeak-ng", "es", f"Spanish ({name})", natural=False) for name in ("klatt", "f2")),
    Voice(CLONE, "xtts-v2", "es", "the speaker's own voice"),
    Voice("Claribel Dervla", "xtts-v2", "es", "Claribel Dervla"),
    Voice("pt-br+f2", "espeak-ng", "pt-BR", "Portuguese (Brazil) (f2)", natural=False),
]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "Output") as opened:
        voicebook.write(opened.office.settings.state, BOOK)
        opened.office.store.beat("worker", {})
        yield opened


@pytest.fixture
def ana(site: Site) -> Client:
    return site.client("ana", "user")


def keep(client: Client, language: str, engine: str, voice: str) -> str:
    fields = {"language": language, "engine": engine, "voice": voice}
    answer = client.post("/ui/voices/default", data=fields, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def test_the_page_has_every_voice_of_a_language_and_what_to_type_for_it(ana: Client) -> None:
    page = ana.get("/ui/voices?language=es").text

    assert re.findall(r'<h2 id="engine-\d">(.*)</h2>', page) == ["espeak-ng", "xtts-v2"]
    assert "<code>--engine speak=espeak-ng --voice es+f2</code>" in page
    assert "<code>--engine speak=xtts-v2 --voice &#39;Claribel Dervla&#39;</code>" in page
    assert "Portuguese" not in page and page.count("robotic") == 2
    assert [tag for tag in ("es", "pt-BR") if f'<option value="{tag}"' in page] == ["es", "pt-BR"]
    assert "Spanish (f2)" in ana.get("/ui/voices").text  # the first of the common ones
    assert ana.get("/ui/voices?language=tlh").status_code == 404


def test_before_a_worker_has_told_the_page_says_so(tmp_path: Path) -> None:
    with Site(tmp_path / "Output") as site:
        ana = site.client("ana", "user")
        assert "No worker has told of its voices yet" in ana.get("/ui/voices").text
        path = site.office.settings.state / "voices" / "voices.json"
        path.parent.mkdir()
        for broken in (
            "",
            "[]",
            "{}",
            '{"schema": 1}',
            '{"schema": 1, "voices": [{"id": 1}]}',
            '{"schema": 2, "voices": [{}]}',
        ):
            path.write_text(broken)
            os.utime(path, ns=(len(broken), len(broken)))
            assert "No worker has told" in ana.get("/ui/voices").text, broken


def test_a_kept_voice_is_offered_with_a_new_dub_and_speaks_its_language_alone(site: Site, ana: Client) -> None:
    assert keep(ana, "es", "xtts-v2", "Claribel Dervla").endswith("language=es&said=kept")
    keep(ana, "es", "espeak-ng", "es+f2")
    keep(ana, "pt-BR", "espeak-ng", "pt-br+f2")

    form = ana.get("/ui/upload").text
    offered = dict(re.findall(r'name="voice:([\w-]+)" value="([^"]*)" checked', form))
    assert offered == {"es": "espeak-ng es+f2", "pt-BR": "espeak-ng pt-br+f2"}
    assert "voice:" not in site.client("ben", "user").get("/ui/upload").text
    assert "yours" in ana.get("/ui/voices?language=es").text

    fields = {"upload": upload(ana), "target": ["es", "fr"]} | {f"voice:{tag}": value for tag, value in offered.items()}
    (job,) = ana.post("/ui/upload", data=fields, headers=SCRIPT).json()["jobs"]
    request = request_of(site, job["id"])
    assert (request.engines, request.voices) == ({"speak:es": "espeak-ng"}, {"es:*": "es+f2"})
    assert orders.from_json(orders.to_json(request)) == request

    assert keep(ana, "es", "", "").endswith("said=forgotten")
    assert "voice:es" not in ana.get("/ui/upload").text


def test_only_voices_of_the_page_can_be_kept_and_odd_ones_are_refused_with_a_dub(site: Site, ana: Client) -> None:
    for fields in ({"language": "es", "engine": "espeak-ng", "voice": "es+m9"}, {"language": "fr", "voice": "es+f2"}):
        assert ana.post("/ui/voices/default", data=fields).status_code == 404
    assert site.office.store.preferences(site.user("ana").id) == {}
    odd = ana.post("/ui/upload", data={"upload": upload(ana), "target": "es", "voice:es": "espeak-ng"}, headers=SCRIPT)
    assert (odd.status_code, odd.json()["code"]) == (400, "usage")


def test_a_sample_is_asked_for_once_and_played_when_the_worker_has_spoken_it(site: Site, ana: Client) -> None:
    state, voice = site.office.settings.state, BOOK[1]
    address = f"/ui/voices/samples/{voicebook.key_of(voice)}"
    assert ana.get(address).status_code == 404

    asked = ana.post(address, follow_redirects=False)
    ana.post(address)
    assert (asked.status_code, asked.headers["location"]) == (
        303,
        f"/ui/voices?language=es#v-{voicebook.key_of(voice)}",
    )
    assert voicebook.wishes(state) == [voice]
    page = ana.get("/ui/voices?language=es").text
    assert page.count("is being spoken") == 1 and page.count('data-waits="true"') == 1

    voicebook.grant(state, voice, b"RIFF....")
    assert voicebook.wishes(state) == []
    sound = ana.get(address)
    assert (sound.status_code, sound.headers["content-type"], sound.content) == (200, "audio/wav", b"RIFF....")
    assert f'<audio controls preload="none" src="{address}"' in ana.get("/ui/voices?language=es").text


def test_no_sample_is_offered_that_nobody_would_speak(site: Site, ana: Client) -> None:
    clone = f"/ui/voices/samples/{voicebook.key_of(BOOK[2])}"
    assert ana.get("/ui/voices?language=es").text.count("Listen") == 3  # not of a clone
    assert ana.post(clone).status_code == 404 and ana.post("/ui/voices/samples/..%2fvoices").status_code == 404
    assert "Listen" not in site.client("vera", "viewer").get("/ui/voices?language=es").text
    site.office.store.leave("worker")
    assert "Listen" not in ana.get("/ui/voices?language=es").text


def test_samples_and_wishes_are_bounded_and_wishes_for_nothing_are_forgotten(tmp_path: Path) -> None:
    voices = [Voice(f"v{number}", "espeak-ng", "es") for number in range(voicebook.MOST_SAMPLES + 5)]
    voicebook.write(tmp_path, voices)
    assert [voicebook.wish(tmp_path, voice) for voice in voices[:25]] == [True] * voicebook.MOST_WISHES + [False] * 5
    for voice in voices:
        voicebook.grant(tmp_path, voice, b"x")
    assert voicebook.wishes(tmp_path) == []
    kept = [voice for voice in voices if voicebook.sample_of(tmp_path, voice).exists()]
    assert len(kept) == voicebook.MOST_SAMPLES and voices[-1] in kept

    voicebook.wish(tmp_path, Voice("gone", "espeak-ng", "es"))
    voicebook.wish(tmp_path, voices[0])
    assert voicebook.wishes(tmp_path) == [voices[0]]
    voicebook.grant(tmp_path, voices[0], None)
    assert not list((tmp_path / "voices").glob("*.wish"))


def test_what_engines_offer_is_found_without_loading_them(require_program: object) -> None:
    require_program("espeak-ng")  # type: ignore[operator]
    found = list(offered.voices(["espeak-ng", "no such engine"]))
    tags = {voice.language for voice in found}
    assert {"es", "pt", "pt-BR", "zh"} <= tags and len(tags) > 80
    assert {voice.id for voice in found if voice.language == "es"} >= {"es+klatt", "es"}
    assert {voice.language for voice in offered.voices(["fake-speak"])} >= {"es", "pt-BR", "zh"}  # speaks any
    assert offered.sample_text("es-MX") == offered.sample_text("es") and "日本語" in offered.sample_text("ja")
