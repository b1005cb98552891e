"""Whisper's engine: batches of any languages, times, detection, and what goes wrong, on tiny models in the real format."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import wave
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import pytest
from engine_media import silence
from faster_whisper import WhisperModel

from dubbing.engines import faster_whisper, weights
from dubbing.engines.base import EngineInfo, EngineSpec, TranscribeItem, Transcript
from dubbing.engines.local import LocalClient
from dubbing.engines.whisper_batch import WhisperEngine
from dubbing.errors import (
    BadInputError,
    DubbingError,
    EngineBrokenError,
    EngineError,
    EngineMissingError,
    LanguageError,
    WeightsDamagedError,
    WeightsMissingError,
)
from dubbing.types import Int16Audio
from tests.models import whisper
from tests.models.fixtures import WHISPER_SAYS

pytestmark = pytest.mark.usefixtures("models_home")
ENGLISH = "good morning the house listens now"
SPANISH = "hola buenos días amigos míos"


class Counted:
    """A loaded model that counts the calls of its methods and the rows they get."""

    def __init__(self, model: Any, calls: list[tuple[str, int]]) -> None:
        self._model, self._calls = model, calls
        if isinstance(model, WhisperModel):
            self.model = Counted(model.model, calls)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._model, name)
        if name not in {"encode", "generate", "find_alignment", "detect_language"}:
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            rows = arguments[1] if name in {"generate", "find_alignment"} else arguments[0]
            self._calls.append((name, rows.shape[0] if hasattr(rows, "shape") else len(rows)))
            return found(*arguments, **options)

        return call


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[..., str]) -> Int16Audio:
    """Six seconds of speech, 16 kHz."""
    require_program("flite")
    path = tmp_path_factory.mktemp("voice") / "voice.wav"
    text = "Good morning. Today we will talk about the weather. It is very nice outside, and warm."
    subprocess.run(["flite", "-voice", "slt", "-t", text, "-o", path], check=True)
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels()) == (16_000, 1)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


@pytest.fixture(scope="module")
def engine(models_home: Path) -> Iterator[WhisperEngine]:
    loaded = faster_whisper.SMALL.load({"device": "cpu", "threads": 1})
    yield loaded
    loaded.close()


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., tuple[WhisperEngine, list[tuple[str, int]]]]]:
    """Makes an engine over a tiny model of one's own, and the list of calls that its model gets."""
    engines: list[WhisperEngine] = []

    def make(*arguments: Any, **options: Any) -> tuple[WhisperEngine, list[tuple[str, int]]]:
        folder = whisper.make(tmp_path / str(len(engines)), *arguments, **options)
        calls: list[tuple[str, int]] = []
        model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)
        info = EngineInfo("faster-whisper-small", "transcribe", "1", "MIT", detects=True)
        engines.append(WhisperEngine(info, Counted(model, calls)))
        return engines[-1], calls

    yield make
    for one in engines:
        one.close()


def item(audio: Int16Audio, language: str = "en", offset_ms: int = 0) -> TranscribeItem:
    return TranscribeItem(audio, offset_ms, language)


def text(transcript: Transcript) -> str:
    return " ".join(segment.text for segment in transcript.segments)


def test_words_come_with_times_on_the_jobs_clock(engine: WhisperEngine, voice: Int16Audio) -> None:
    [transcript] = engine.run([item(voice, offset_ms=60_000)])

    first, second = transcript.segments
    assert (first.text, second.text) == ("good morning", "the house listens now")
    words = [word for segment in transcript.segments for word in segment.words]
    assert [word.text for word in words] == ENGLISH.split()
    assert all(type(word.start_ms) is int and type(word.end_ms) is int for word in words)
    assert all(60_000 <= word.start_ms < word.end_ms <= 60_000 + voice.size // 16 for word in words)
    assert [word.start_ms for word in words] == sorted(word.start_ms for word in words)
    # The script knows "the" after a timestamp only, and words are aligned without timestamps.
    assert [word.confidence for word in words if word.text != "the"] == [pytest.approx(1.0, abs=0.01)] * 5
    assert (transcript.language, transcript.probability) == ("en", 1.0)


def test_two_languages_share_a_batch_and_answers_keep_its_order(engine: WhisperEngine, voice: Int16Audio) -> None:
    found = engine.run([item(voice), item(voice, "es-MX"), item(voice[8000:]), item(voice, "es")])
    assert list(map(text, found)) == [ENGLISH, SPANISH, ENGLISH, SPANISH]
    assert [transcript.language for transcript in found] == ["en", "es-MX", "en", "es"]


def test_a_batch_costs_one_encoder_call_one_decoder_call_and_an_alignment_for_each_language(
    made: Any, voice: Int16Audio
) -> None:
    engine, calls = made(WHISPER_SAYS)
    engine.run([item(voice, language) for language in ("en", "es", "en", "en", "es", "en")] + [item(silence(3))])
    assert Counter(calls) == {("encode", 6): 1, ("generate", 6): 1, ("find_alignment", 4): 1, ("find_alignment", 2): 1}


@pytest.mark.parametrize("seed", [1, 2])
def test_a_piece_is_heard_alike_alone_and_in_any_batch(made: Any, voice: Int16Audio, seed: int) -> None:
    engine, _ = made(seed=seed)
    items = [
        item(voice[at:], tag, at // 16) for at, tag in ((0, "en"), (24_000, "fr"), (48_000, "en"), (9_000, "auto"))
    ]
    alone = [engine.run([one])[0] for one in items]
    assert engine.run(items) == alone
    assert engine.run(items[::-1]) == alone[::-1]
    assert len({text(transcript) for transcript in alone}) > 1, "the model hears a difference"


def test_nothing_is_kept_from_one_batch_for_the_next(engine: WhisperEngine, voice: Int16Audio) -> None:
    first = engine.run([item(voice, "es")])
    engine.run([item(voice[::-1].copy(), "en", 90_000)])
    assert engine.run([item(voice, "es")]) == first


def test_the_language_is_detected_where_it_was_not_said(made: Any, voice: Int16Audio) -> None:
    engine, calls = made({"es": SPANISH, "en": ENGLISH})
    found = engine.run([item(voice, "auto"), item(voice, "en"), item(voice, "auto")])
    assert list(map(text, found)) == [SPANISH, ENGLISH, SPANISH]
    assert [transcript.language for transcript in found] == ["es", "en", "es"]
    assert found[0].probability == pytest.approx(1.0)
    assert [name for name, _ in calls].count("detect_language") == 1


def test_nothing_is_detected_where_every_language_was_said(made: Any, voice: Int16Audio) -> None:
    engine, calls = made(WHISPER_SAYS)
    engine.run([item(voice), item(voice, "es")])
    assert "detect_language" not in [name for name, _ in calls]


def test_languages_have_their_bcp_47_tags_not_whispers_codes(made: Any, voice: Int16Audio) -> None:
    engine, _ = made({"jw": "sugeng enjang"})
    [detected, asked] = engine.run([item(voice, "auto"), item(voice, "jv")])
    assert (detected.language, asked.language) == ("jv", "jv")
    assert text(detected) == text(asked) == "sugeng enjang"


def test_a_text_without_end_is_decoded_again_alone_and_told_as_doubtful(made: Any, voice: Int16Audio) -> None:
    engine, calls = made({"en": ENGLISH, "fr": "merci encore"}, loops={"fr"})
    good, looped = engine.run([item(voice), item(voice, "fr")])
    assert [call for call in calls if call[0] == "generate"] == [("generate", 2), ("generate", 1)]
    assert text(good) == ENGLISH
    words = [word for segment in looped.segments for word in segment.words]
    assert len(words) < 224, "the decoder was stopped by its limit, and the loop was cut"
    assert all((word.confidence or 0) <= 0.3 for word in words)


def test_silence_is_not_recognised_and_not_given_to_the_model(made: Any, voice: Int16Audio) -> None:
    engine, calls = made(WHISPER_SAYS)
    nothing, spoken, unknown, empty = engine.run(
        [item(silence(3)), item(voice), item(silence(3), "auto"), item(silence(0))]
    )
    assert (nothing, empty) == (Transcript((), "en"), Transcript((), "en"))
    assert (unknown.language, unknown.probability, unknown.segments) == ("und", 0.0, ())
    assert text(spoken) == ENGLISH
    assert ("encode", 1) in calls


def test_a_caller_that_has_looked_for_speech_says_where_it_is(engine: WhisperEngine, voice: Int16Audio) -> None:
    said, nothing = engine.run(
        [TranscribeItem(voice, 0, "en", ((500, 1500), (4000, 5000))), TranscribeItem(voice, 0, "en", ())]
    )
    assert nothing.segments == ()
    words = [word for segment in said.segments for word in segment.words]
    assert all(500 <= w.start_ms < w.end_ms <= 1520 or 4000 <= w.start_ms < w.end_ms <= 5020 for w in words)


def test_text_over_silence_is_dropped(made: Any, voice: Int16Audio) -> None:
    engine, _ = made({"en": "good morning <|1.00|> <|12.00|> thanks everybody <|14.00|>"})
    audio = np.concatenate([voice, silence(14 - voice.size / 16_000)])
    assert text(engine.run([item(audio)])[0]) == "good morning"


def test_large_v3_has_128_mel_bands_and_cantonese(models_home: Path, voice: Int16Audio) -> None:
    engine = faster_whisper.LARGE_V3_TURBO.load({"device": "cpu", "threads": 1})
    try:
        assert text(engine.run([item(voice)])[0]) == ENGLISH
        engine.run([item(voice, "yue")])
    finally:
        engine.close()
    assert faster_whisper.LARGE_V3_TURBO.languages().can("yue", "yue")
    assert not faster_whisper.SMALL.languages().can("yue", "yue")


def test_the_version_changes_with_the_weights_and_with_the_width_of_the_search(
    models_home: Path, tmp_path: Path
) -> None:
    def version(**options: Any) -> str:
        engine = faster_whisper.SMALL.load({"device": "cpu", **options})
        engine.close()
        return str(engine.info.version)

    other = tmp_path / "other"
    shutil.copytree(models_home / "faster-whisper-small", other)
    files = {"model.bin": {"size": (other / "model.bin").stat().st_size, "sha256": "0" * 64}}
    record = {"repo": "a/b", "revision": "", "files": files}
    (other / "files.json").write_text(json.dumps(record))
    assert len({version(), version(beam_size=1), version(path=str(other))}) == 3
    assert version(threads=1, max_batch=2) == version()


@pytest.mark.parametrize(("options", "size"), [({}, 4), ({"max_batch": 9}, 9)])
def test_the_batch_is_as_large_as_the_options_say(options: dict[str, Any], size: int) -> None:
    engine = faster_whisper.SMALL.load({"device": "cpu", **options})
    engine.close()
    assert (engine.info.max_batch, engine.info.detects) == (size, True)


def load(spec: EngineSpec = faster_whisper.SMALL, **options: Any) -> DubbingError:
    """The error of loading with these options, complete."""
    with pytest.raises(DubbingError) as caught:
        spec.load({"device": "cpu", **options})
    assert "<" not in caught.value.message + caught.value.advice, "every fact is filled in"
    return caught.value


def test_missing_weights_are_told_with_the_command_that_fetches_them(tmp_path: Path) -> None:
    error = load(path=str(tmp_path))
    assert isinstance(error, WeightsMissingError)
    assert str(tmp_path) in error.message
    assert error.advice == "Run: dub models fetch faster-whisper-small"


def damaged(models_home: Path, folder: Path, name: str, content: Callable[[bytes], bytes]) -> Path:
    shutil.copytree(models_home / "faster-whisper-small", folder)
    (folder / name).write_bytes(content((folder / name).read_bytes()))
    return folder


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.bin", lambda content: content[: len(content) // 2]),
        ("model.bin", lambda content: b""),
        ("config.json", lambda content: b"{"),
        ("tokenizer.json", lambda content: content[:100]),
        ("tokenizer.json", lambda content: b"{}"),
    ],
)
def test_a_damaged_file_is_told_as_such(
    models_home: Path, tmp_path: Path, name: str, content: Callable[[bytes], bytes]
) -> None:
    error = load(path=str(damaged(models_home, tmp_path / "model", name, content)))
    assert isinstance(error, WeightsDamagedError)
    assert error.advice == "Run: dub models fetch faster-whisper-small"


def test_a_model_for_english_alone_is_refused(tmp_path: Path) -> None:
    folder = whisper.make(tmp_path / "english", multilingual=False)
    error = load(path=str(folder))
    assert isinstance(error, WeightsDamagedError) and "English alone" in error.message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"beam_sise": 3}, "has no option beam_sise"),
        ({"beam_size": 0}, "greater than or equal to 1"),
        ({"device": "tpu"}, "'auto', 'cpu' or 'cuda'"),
        ({"compute_type": "int3"}, "the cpu here can do"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_name(options: dict[str, Any], words: str) -> None:
    error = load(**options)
    assert error.exit_code == 2 and words in error.message


def test_a_gpu_that_was_asked_for_and_is_not_there_is_an_error() -> None:
    if ctranslate2.get_cuda_device_count():
        pytest.skip("this machine has a GPU")
    error = load(device="cuda")
    assert type(error) is EngineMissingError and "no GPU" in error.message


@pytest.mark.parametrize(
    ("language", "seconds", "error"), [("tlh", 1, LanguageError), ("yue", 1, LanguageError), ("en", 31, BadInputError)]
)
def test_what_it_cannot_hear_is_refused(
    engine: WhisperEngine, language: str, seconds: int, error: type[DubbingError]
) -> None:
    with pytest.raises(error):
        engine.run([item(silence(seconds), language)])


class Failing(Counted):
    """A loaded model whose encoder fails for more than some rows."""

    def __init__(self, model: Any, words: str, room: int) -> None:
        super().__init__(model, [])
        self._words, self._room = words, room

    def encode(self, features: Any) -> Any:
        if len(features) > self._room:
            raise RuntimeError(self._words)
        return self._model.encode(features)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("CUDA failed with error out of memory", EngineError),
        ("CUDA failed with error an illegal memory access was encountered", EngineBrokenError),
        ("cuBLAS failed with status CUBLAS_STATUS_EXECUTION_FAILED", EngineBrokenError),
        ("a shape does not fit", EngineError),
    ],
)
def test_a_gpu_that_failed_is_not_used_again_unless_it_was_only_full(
    models_home: Path, voice: Int16Audio, words: str, error: type[DubbingError]
) -> None:
    model = WhisperModel(str(models_home / "faster-whisper-small"), device="cpu", cpu_threads=1)
    engine = WhisperEngine(EngineInfo("w", "transcribe", "1", "MIT"), Failing(model, words, 0))
    with pytest.raises(error) as caught:
        engine.run([item(voice)])
    assert type(caught.value) is error and words in caught.value.message
    engine.close()


def test_a_batch_that_does_not_fit_into_memory_is_heard_in_halves(models_home: Path, voice: Int16Audio) -> None:
    async def scenario() -> tuple[list[str], int]:
        model = WhisperModel(str(models_home / "faster-whisper-small"), device="cpu", cpu_threads=1)
        info = EngineInfo("w", "transcribe", "1", "MIT")
        client = LocalClient(
            WhisperEngine(info, Failing(model, "CUDA failed with error out of memory", 2)), linger_s=0.2
        )
        tags = ("en", "es", "en", "es")
        answers = await asyncio.gather(*(client(item(voice, tag), lane="job") for tag in tags))
        batches = client.stats().batches
        await client.aclose()
        return list(map(text, answers)), batches

    assert asyncio.run(scenario()) == ([ENGLISH, SPANISH] * 2, 3)


def test_it_is_located_by_its_weights_alone(models_home: Path, tmp_path: Path) -> None:
    assert faster_whisper.SMALL.locate().ok
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUBBING_MODELS_DIR", str(tmp_path))
        weights.home.cache_clear()
        located = faster_whisper.SMALL.locate()
    weights.home.cache_clear()
    assert (located.ok, located.install) == (False, "dub models fetch faster-whisper-small")


def test_looking_at_the_specs_imports_no_model_library() -> None:
    code = (
        "import sys; from dubbing.engines import faster_whisper as f; f.SMALL.locate(); f.SMALL.languages(); "
        "print({'ctranslate2', 'faster_whisper', 'torch'} & set(sys.modules))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "set()"
    )
