"""The speech API on a real Ray, as the official client of OpenAI sees it."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import urllib.request
import warnings
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from cluster_support import API_KEY, Cluster, add_api, stats, write_config
from ray import serve

from cluster import serving
from cluster.road import RayRoad
from dubbing.config import Settings
from dubbing.errors import SettingsError
from dubbing.media import probe
from dubbing.subtitles import parse_subtitles

KENNEDY = {"and", "so", "my", "fellow", "americans", "ask", "not", "what", "your", "country", "can", "do", "for", "you"}


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{cluster.api}/v1", api_key=API_KEY, max_retries=0, timeout=240) as client:
        yield client


def tone(seconds: float, rate: int = 8000) -> io.BytesIO:
    """A WAV that is never silent."""
    samples = (np.sin(np.arange(int(seconds * rate)) * 0.2) * 9000).astype("<i2")
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    data.seek(0)
    data.name = "tone.wav"
    return data


def translate(client: openai.OpenAI, file: Path, **options: Any) -> Any:
    with warnings.catch_warnings():
        # The client advises its users of other models; the address stays.
        warnings.simplefilter("ignore", DeprecationWarning)
        return client.audio.translations.create(file=file, model="fake-transcribe", **options)


def length_ms(tmp_path: Path, name: str, body: bytes) -> int:
    (tmp_path / name).write_bytes(body)
    return asyncio.run(probe.probe(tmp_path / name)).duration_ms


# --- hearing ------------------------------------------------------------------------------------------------------


def test_a_real_recording_is_transcribed_with_words_and_their_times(client: openai.OpenAI, media_dir: Path) -> None:
    told = client.audio.transcriptions.create(
        file=media_dir / "jfk.flac",
        model="whisper-1",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    words = told.text.lower().split()
    assert sum(word in KENNEDY for word in words) >= 0.5 * len(words) >= 5
    assert told.language == "en"
    assert float(told.duration) == pytest.approx(11.0, abs=0.1)
    assert told.words is not None
    assert told.segments is not None
    assert " ".join(word.word for word in told.words) == told.text
    assert all(0 <= word.start <= word.end <= 11.1 for word in told.words)
    assert told.segments[0].start < told.segments[-1].end


def test_subtitles_come_as_srt_and_vtt(client: openai.OpenAI, media_dir: Path) -> None:
    with (media_dir / "od_englishvideo.mp4").open("rb") as video:
        srt = client.audio.transcriptions.create(file=video, model="pocketsphinx", language="en", response_format="srt")
    assert parse_subtitles(srt.encode())[-1].end_ms <= 10_000


def test_speech_of_another_language_is_told_in_english(client: openai.OpenAI, media_dir: Path) -> None:
    told = translate(
        client,
        media_dir / "jfk.flac",
        response_format="text",
        extra_body={"language": "es", "translation_model": "fake-translate"},
    )
    # The double hears numbered words, and the other double marks what it translated.
    assert str(told).startswith("[en] w")


def test_english_needs_no_translation(client: openai.OpenAI, media_dir: Path) -> None:
    told = translate(client, media_dir / "jfk.flac", extra_body={"language": "en"})
    assert told.text.startswith("w")


def test_where_nobody_speaks_the_text_is_empty(client: openai.OpenAI) -> None:
    told = client.audio.transcriptions.create(file=tone(2), model="fake-transcribe", language="en")
    assert told.text == ""


# --- speaking -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["mp3", "opus", "aac", "flac", "wav"])
def test_a_text_is_spoken_in_every_format(client: openai.OpenAI, tmp_path: Path, form: Any) -> None:
    spoken = client.audio.speech.create(model="fake-speak", voice="alloy", input="x" * 45, response_format=form)
    assert length_ms(tmp_path, f"speech.{form}", spoken.content) == pytest.approx(3000, abs=150)


def test_headerless_samples_are_24_khz_and_speed_beyond_the_engines_own_is_stretched(client: openai.OpenAI) -> None:
    def seconds(speed: float) -> float:
        spoken = client.audio.speech.create(
            model="fake-speak", voice="nova", input="x" * 45, response_format="pcm", speed=speed
        )
        return len(spoken.content) / 2 / 24_000

    assert seconds(1.0) == pytest.approx(3.0, abs=0.05)
    assert seconds(1.5) == pytest.approx(2.0, abs=0.05)
    assert seconds(4.0) == pytest.approx(0.75, abs=0.1)
    assert seconds(0.25) == pytest.approx(12.0, abs=0.4)


def test_a_long_text_is_spoken_in_pieces_that_share_batches_with_everybody(client: openai.OpenAI) -> None:
    handle = serve.get_deployment_handle("Speaker", "engines")
    before = asyncio.run(stats(handle)).items
    sentence = f"{'word ' * 20}end. "
    spoken = client.audio.speech.create(model="fake-speak", voice="alloy", input=sentence * 10, response_format="pcm")
    pieces = asyncio.run(stats(handle)).items - before
    assert 4 <= pieces <= 10
    assert len(spoken.content) / 48_000 == pytest.approx(len(sentence * 10) / 15, rel=0.1)


def test_a_real_voice_speaks_another_language(
    client: openai.OpenAI, cluster: Cluster, tmp_path: Path, require_program: Any
) -> None:
    require_program("espeak-ng")
    with client.audio.speech.with_streaming_response.create(
        model="espeak-ng", voice="es", input="Buenos días a todos.", response_format="mp3"
    ) as answer:
        answer.stream_to_file(tmp_path / "speech.mp3")
    assert 500 < asyncio.run(probe.probe(tmp_path / "speech.mp3")).duration_ms < 5000


# --- what there is, and what is refused ---------------------------------------------------------------------------


def test_the_models_are_the_engines_that_are_deployed(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert {"pocketsphinx", "fake-transcribe", "fake-speak"} <= set(names)
    assert client.models.retrieve("fake-speak").id == "fake-speak"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")


def test_health_needs_no_key(cluster: Cluster) -> None:
    with urllib.request.urlopen(f"{cluster.api}/healthz", timeout=60) as answer:
        assert (answer.status, json.load(answer)) == (200, {"engines": "RUNNING"})


def test_a_wrong_key_is_refused_in_words_the_client_knows(cluster: Cluster) -> None:
    with (
        openai.OpenAI(base_url=f"{cluster.api}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        stranger.models.list()
    assert (caught.value.code, caught.value.type) == ("invalid_api_key", "invalid_request_error")


def test_an_upload_that_is_too_large_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.audio.transcriptions.create(file=("big.wav", b"\0" * 4_500_000), model="whisper-1")
    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("notes.txt", b"These are my notes, and nobody speaks in them. " * 40, "media_unreadable"),
        ("empty.mp3", b"", "file_empty"),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "media_forbidden"),
    ],
)
def test_an_upload_that_is_no_recording_is_refused(client: openai.OpenAI, name: str, body: bytes, code: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(file=(name, body), model="fake-transcribe", language="en")
    assert (caught.value.code, caught.value.type) == (code, "invalid_request_error")


def test_a_recording_that_is_too_long_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(file=tone(63, rate=4000), model="fake-transcribe", language="en")
    assert caught.value.code == "media_too_long"


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"response_format": "ogg"}, 400, "invalid_value", "response_format"),
        ({"input": ""}, 400, "invalid_value", "input"),
        ({"input": " \n "}, 400, "invalid_value", "input"),
        ({"input": "x" * 4097}, 400, "invalid_value", "input"),
        ({"speed": 5.0}, 400, "invalid_value", "speed"),
        ({"voice": "nobody"}, 400, "invalid_value", "voice"),
        ({"model": "gpt-5"}, 404, "model_not_found", "model"),
        ({"model": "fake-transcribe"}, 404, "model_not_found", "model"),
        ({"extra_body": {"language": "../etc"}}, 400, "invalid_value", "language"),
    ],
)
def test_a_request_that_cannot_be_served_says_which_field_is_wrong(
    client: openai.OpenAI, change: dict[str, Any], status: int, code: str, param: str
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.audio.speech.create(**{"model": "fake-speak", "voice": "alloy", "input": "hello", **change})
    assert (caught.value.status_code, caught.value.code, caught.value.param) == (status, code, param)


def test_an_unknown_transcript_format_and_streams_are_refused(client: openai.OpenAI) -> None:
    for field, value in (("response_format", "docx"), ("stream", True)):
        with pytest.raises(openai.BadRequestError) as caught:
            client.audio.transcriptions.create(**{"file": tone(1), "model": "fake-transcribe", field: value})  # type: ignore[call-overload]
        assert caught.value.param == field


def test_a_language_the_engine_does_not_know_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(file=tone(1), model="pocketsphinx", language="ja")
    assert caught.value.code == "language"
    with pytest.raises(openai.BadRequestError, match="does not detect languages"):
        client.audio.transcriptions.create(file=tone(1), model="fake-transcribe")


def test_a_path_that_does_not_exist_is_an_error_like_all_others(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.post("/embeddings", cast_to=object, body={})
    assert caught.value.code == "not_found"


# --- turning it on ------------------------------------------------------------------------------------------------


def test_who_hosts_the_queue_is_told_where_the_api_is(cluster: Cluster, tmp_path: Path) -> None:
    told = {"ray_address": cluster.address, "output_dir": tmp_path, "queue_mode": "fallback", "serve_api_key": API_KEY}
    settings = Settings.model_validate({**told, "serve_config": cluster.folder / "engines.yaml"})

    async def host() -> str:
        road = RayRoad(settings, log_dir=tmp_path, engine_args={})
        try:
            return str((await road.host_queue())["api"])
        finally:
            await road.aclose()

    assert asyncio.run(host()) == f"The speech API answers at {cluster.api}/v1."


def test_without_a_key_the_api_stays_off_and_says_so(cluster: Cluster, tmp_path: Path) -> None:
    config = serving.load_config(add_api(write_config(tmp_path / "c.yaml", {"speak": {"fake-speak": {}}}), 1))
    assert "wants DUBBING_SERVE_API_KEY" in serving.deploy_api(config, Settings())
    assert serving.deploy_api(serving.load_config(None), Settings()) == ""


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = serving.load_config(add_api(write_config(tmp_path / "c.yaml", {"speak": {"fake-speak": {}}}), port))
        with pytest.raises(SettingsError, match=f"127.0.0.1:{port}"):
            serving.start(config, ours=True)


def test_limits_that_make_no_sense_are_refused(cluster: Cluster, tmp_path: Path) -> None:
    path = add_api(write_config(tmp_path / "c.yaml", {"speak": {"fake-speak": {}}}), 1, max_upload_mb=0)
    config = serving.load_config(path)
    config.applications[-1].name = "senseless"
    with pytest.raises(SettingsError, match="max_upload_mb"):
        serving.deploy_api(config, Settings(serve_api_key=API_KEY))
