"""What every engine keeps, whatever is behind it: each implementation runs the same tests on real input."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from broken_models import break_model, own_options
from engine_media import clip, recording, reference, require, silence

from dubbing.engines import (
    apertium,
    chat,
    ctranslate2_translate,
    demucs,
    espeak,
    fake,
    faster_whisper,
    pocketsphinx,
    sherpa,
    xtts,
)
from dubbing.engines.base import (
    AlignItem,
    DiarizeItem,
    Engine,
    EngineSpec,
    Probed,
    SeparateItem,
    SpeakItem,
    Stems,
    TranscribeItem,
    Transcript,
    TranslateItem,
)
from dubbing.engines.local import LocalClient
from dubbing.errors import DubbingError, EngineBrokenError, EngineError
from dubbing.types import Speech
from tests.chat_server import chat_server, good

pytestmark = pytest.mark.usefixtures("models_home")
MUTE = "nobody will translate this"
HOME, CHILD = "ds_newhome.wav", "sb_spk1_snt1.wav"


def ears(name: str, offset_ms: int = 0) -> TranscribeItem:
    return TranscribeItem(clip(name), offset_ms, "en")


def aligned(name: str) -> AlignItem:
    return AlignItem(clip(name), 0, "en", reference(name))


@dataclass(frozen=True)
class Case:
    """An implementation with real items for it, and one that it must refuse."""

    spec: EngineSpec
    items: Any
    refused: Any
    options: dict[str, Any]
    models: str = ""
    """Name of the fixture that makes its model files, or starts its service."""
    deterministic: bool = True


def stereo(name: str, seconds: float = 2.0) -> SeparateItem:
    """A clip that wanders from left to right, 48 kHz."""
    mono = np.repeat(clip(name)[: int(16_000 * seconds)], 3).astype(np.float64)
    share = np.linspace(0, 1, len(mono))
    return SeparateItem(np.stack([mono * (1 - share), mono * share], axis=1).astype(np.int16))


def cases() -> dict[str, Case]:
    words = lambda: [  # noqa: E731 - made only when a test runs
        SpeakItem("Un hogar en las estrellas.", "es", "es+klatt"),
        SpeakItem("Hello there!", "en", "en-us+f2", 1.3),
        SpeakItem("¿Qué?", "es", "es"),
    ]
    lines = lambda: [TranslateItem(t, "en", "es") for t in ("A house.", "Where is it?", "I see two dogs.")]  # noqa: E731
    heard = lambda: [ears(HOME), ears(CHILD, 60_000)]  # noqa: E731
    timed = lambda: [aligned(HOME), aligned(CHILD)]  # noqa: E731
    poison = {"poison": "Where"}
    words_known = ("hello world.", "Good morning everyone!", "this is a test of the pipeline")
    known = lambda: [TranslateItem(t, "en", "es") for t in words_known]  # noqa: E731
    unknown = TranslateItem("hello", "en", "tlh-Piqd")
    nmt = "translation_models"
    pieces = lambda: [stereo(HOME), stereo(CHILD)]  # noqa: E731
    mono = SeparateItem(np.zeros((100, 1), np.int16))
    talks = lambda: [DiarizeItem(recording(HOME), ((0, 3_000),)), DiarizeItem(recording(CHILD), ((500, 2_500),))]  # noqa: E731
    absent = DiarizeItem(Path("absent.wav"), ((0, 1_000),))
    return {
        "pocketsphinx": Case(pocketsphinx.TRANSCRIBE, heard, TranscribeItem(silence(1), 0, "fr"), {}),
        "pocketsphinx-align": Case(pocketsphinx.ALIGN, timed, AlignItem(silence(1), 0, "en", "hello"), {}),
        "faster-whisper-small": Case(faster_whisper.SMALL, heard, TranscribeItem(silence(1), 0, "tlh"), {}),
        "faster-whisper-large-v3-turbo": Case(
            faster_whisper.LARGE_V3_TURBO, heard, TranscribeItem(silence(31), 0, "en"), {}
        ),
        "apertium": Case(apertium.TRANSLATE, lines, TranslateItem("A house.", "en", "ja"), {}),
        "nllb-600m": Case(ctranslate2_translate.NLLB_600M, known, unknown, {}, nmt),
        "m2m100-418m": Case(ctranslate2_translate.M2M100_418M, known, unknown, {}, nmt),
        "madlad400-3b": Case(ctranslate2_translate.MADLAD400_3B, known, TranslateItem("hello", "en", "tt"), {}, nmt),
        "opus-mt": Case(ctranslate2_translate.OPUS_MT, known, TranslateItem("hello", "en", "fr"), {}, nmt),
        "chat": Case(chat.TRANSLATE, known, TranslateItem(MUTE, "en", "es"), {}, "chat_service", deterministic=False),
        "espeak-ng": Case(espeak.SPEAK, words, SpeakItem("♪ … ♪", "es", "es"), {}),
        "xtts-v2": Case(
            xtts.SPEAK,
            lambda: [SpeakItem("Un hogar.", "es", "Ana Tiny"), SpeakItem("Hello there!", "en", "Bob Tiny", 1.3)],
            SpeakItem("♪ … ♪", "es", ""),
            {},
            "tiny_xtts",
            deterministic=False,
        ),
        "fake-transcribe": Case(fake.TRANSCRIBE, heard, TranscribeItem(silence(1), 7, "en"), {"poison": "audio@7"}),
        "fake-align": Case(fake.ALIGN, timed, AlignItem(silence(1), 0, "en", "Where"), poison),
        "fake-translate": Case(fake.TRANSLATE, lines, TranslateItem("Where", "en", "es"), {"poison": "Where"}),
        "fake-speak": Case(fake.SPEAK, words, SpeakItem(" ", "es", "tone-1"), {}),
        "fake-separate": Case(fake.SEPARATE, pieces, mono, {"poison": "100 frames"}),
        "fake-diarize": Case(fake.DIARIZE, talks, absent, {"poison": "absent"}),
        "demucs": Case(demucs.SEPARATE, pieces, mono, {"threads": 1}, "tiny_separator"),
        "sherpa-onnx-diarize": Case(sherpa.DIARIZE, talks, absent, {}, "tiny_diarizer"),
    }


@pytest.fixture
def services() -> Iterator[ExitStack]:
    """The services that engines of this test need; closing it ends them."""
    with ExitStack() as running:
        yield running


@pytest.fixture
def chat_service(monkeypatch: pytest.MonkeyPatch, services: ExitStack) -> None:
    """A chat service that answers every line but one."""
    script = lambda asked: "" if MUTE in asked.texts.values() else good(asked)  # noqa: E731 - it is short
    server = services.enter_context(chat_server(script))
    monkeypatch.setenv("DUBBING_CHAT_URL", server.url)
    monkeypatch.setenv("DUBBING_CHAT_MODEL", "tiny-chat")


@pytest.fixture(params=list(cases()))
def case(request: pytest.FixtureRequest) -> Case:
    found = cases()[request.param]
    if found.models:
        request.getfixturevalue(found.models)
    require(found.spec)
    return found


@pytest.fixture
def engine(case: Case) -> Iterator[Engine[Any, Any]]:
    loaded = case.spec.load({})
    yield loaded
    loaded.close()


def exact(answer: Any) -> Any:
    """An answer as something that can be compared, audio byte for byte."""
    if isinstance(answer, Stems):
        return answer.vocals.tobytes(), answer.background.tobytes()
    return (answer.audio.tobytes(), answer.sample_rate, answer.rate) if isinstance(answer, Speech) else answer


def assert_same(answers: Any, others: Any, deterministic: bool) -> None:
    """Byte for byte; of an engine that says it is not so strict, up to the last bits of a sample (rounding in batches)."""
    if deterministic or not all(isinstance(answer, Speech) for answer in answers):
        assert list(map(exact, answers)) == list(map(exact, others))
        return
    for one, other in zip(answers, others, strict=True):
        assert (one.sample_rate, one.rate, one.audio.shape) == (other.sample_rate, other.rate, other.audio.shape)
        assert np.abs(one.audio.astype(int) - other.audio).max() <= 2


def test_the_spec_and_the_loaded_engine_say_the_same(case: Case, engine: Engine[Any, Any]) -> None:
    info, spec = engine.info, case.spec
    assert (info.name, info.kind, info.quality) == (spec.name, spec.kind, spec.quality)
    assert (info.licence, info.commercial_use) == (spec.licence, spec.commercial_use)
    assert info.version
    assert info.max_batch >= 1
    assert spec.summary


def test_locating_and_asking_for_languages_starts_no_process_that_stays(case: Case) -> None:
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    assert case.spec.locate().ok
    assert case.spec.languages().can("en", "es" if case.spec.kind == "translate" else "en")
    assert {p.pid for p in psutil.Process().children(recursive=True)} <= before


def test_answers_come_in_order_one_for_each_item(case: Case, engine: Engine[Any, Any]) -> None:
    items = case.items()
    batch = engine.run(items)
    single = [engine.run([item])[0] for item in items]
    assert_same(batch, single, engine.info.deterministic)
    assert exact(batch[0]) != exact(batch[1])


def test_the_same_input_gives_the_same_answer_in_a_fresh_engine(case: Case, engine: Engine[Any, Any]) -> None:
    items = case.items()
    assert engine.info.deterministic is case.deterministic
    first = engine.run(items)
    again = case.spec.load({})
    try:
        assert_same(again.run(items[::-1])[::-1], first, engine.info.deterministic)
    finally:
        again.close()


def test_an_empty_batch_is_answered_with_nothing(engine: Engine[Any, Any]) -> None:
    assert list(engine.run([])) == []


def test_what_it_cannot_do_is_an_error_of_the_tree_and_spares_the_others(case: Case) -> None:
    async def scenario() -> list[Any]:
        client = LocalClient(case.spec.load(case.options), linger_s=0.05)
        items = [case.items()[0], case.refused]
        answers = await asyncio.gather(*(client(i, lane="job") for i in items), return_exceptions=True)
        await client.aclose()
        return answers

    good, bad = asyncio.run(scenario())
    assert not isinstance(good, BaseException), good
    assert isinstance(bad, DubbingError)
    assert "<" not in bad.message, "every fact of the message is filled in"
    assert "<" not in bad.advice


def test_closing_twice_is_fine_and_leaves_no_process(case: Case) -> None:
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    engine = case.spec.load({})
    engine.run(case.items()[:1])
    engine.close()
    engine.close()
    assert {p.pid for p in psutil.Process().children(recursive=True)} <= before


def test_a_model_passes_its_probe_as_often_as_it_is_asked_and_fails_it_once_it_is_broken(
    case: Case, services: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = own_options(case.spec, tmp_path)
    engine = case.spec.load(options)
    assert isinstance(engine, Probed), "health checks have nothing to ask"
    try:
        engine.probe()
        answer = exact(engine.run(case.items()[:1])[0])
        engine.probe()
        if engine.info.deterministic:
            assert exact(engine.run(case.items()[:1])[0]) == answer, "the probe should leave no trace"
        break_model(case.spec, engine, options, monkeypatch, services.close)
        with pytest.raises(EngineError if case.spec.hidden else EngineBrokenError) as caught:
            engine.probe()
        assert case.spec.name in caught.value.message
        assert "<" not in caught.value.message
    finally:
        engine.close()


def test_a_bucket_can_be_a_key(case: Case, engine: Engine[Any, Any]) -> None:
    assert isinstance(hash(engine.bucket(case.items()[0])), int)


def test_answers_survive_a_trip_between_processes(case: Case, engine: Engine[Any, Any]) -> None:
    answer = engine.run(case.items()[:1])[0]
    assert exact(pickle.loads(pickle.dumps(answer))) == exact(answer)


@pytest.mark.parametrize(
    "name", ["pocketsphinx", "pocketsphinx-align", "faster-whisper-small", "fake-transcribe", "fake-align"]
)
def test_times_are_ordered_and_counted_from_the_start_of_the_job(name: str) -> None:
    spec = require(cases()[name].spec)
    engine = spec.load({})
    audio = clip(HOME)
    item = (
        TranscribeItem(audio, 60_000, "en")
        if spec.kind == "transcribe"
        else AlignItem(audio, 60_000, "en", reference(HOME))
    )
    try:
        [transcript] = engine.run([item])
    finally:
        engine.close()
    assert isinstance(transcript, Transcript)
    words = [word for segment in transcript.segments for word in segment.words]
    starts = [word.start_ms for word in words]
    assert starts == sorted(starts)
    assert all(60_000 <= w.start_ms < w.end_ms <= 60_000 + audio.size // 16 for w in words)
    for segment in transcript.segments:
        assert (segment.start_ms, segment.end_ms) == (segment.words[0].start_ms, segment.words[-1].end_ms)
        assert segment.text.split() == " ".join(word.text for word in segment.words).split()


@pytest.mark.parametrize("name", ["pocketsphinx", "faster-whisper-small", "fake-transcribe"])
def test_silence_is_recognised_as_nothing(name: str) -> None:
    engine = require(cases()[name].spec).load({})
    try:
        [empty, nothing] = engine.run([TranscribeItem(silence(2), 0, "en"), TranscribeItem(silence(0), 0, "en")])
    finally:
        engine.close()
    assert empty.segments == nothing.segments == ()


@pytest.mark.parametrize("name", ["espeak-ng", "fake-speak"])
def test_speech_is_mono_int16_and_faster_at_a_higher_rate(name: str) -> None:
    spec = require(cases()[name].spec)
    engine = spec.load({})
    voice = spec.voices("en")[0].id
    text = "This sentence is long enough to be measured in time."
    try:
        slow, natural, fast = engine.run([SpeakItem(text, "en", voice, rate) for rate in (0.8, 1.0, 1.6)])
    finally:
        engine.close()
    assert natural.audio.dtype == np.int16
    assert natural.audio.ndim == 1
    assert slow.duration_ms > natural.duration_ms > fast.duration_ms
    assert natural.duration_ms / fast.duration_ms == pytest.approx(1.6, rel=0.12)
    assert (slow.rate, natural.rate, fast.rate) == (0.8, 1.0, 1.6)


@pytest.mark.parametrize("name", ["espeak-ng", "fake-speak"])
def test_a_rate_out_of_range_is_brought_into_it_and_told(name: str) -> None:
    spec = require(cases()[name].spec)
    engine = spec.load({})
    try:
        low, high = engine.info.rate_range
        speeches = engine.run([SpeakItem("Hello there.", "en", spec.voices("en")[0].id, rate) for rate in (0.1, 9.0)])
    finally:
        engine.close()
    assert [speech.rate for speech in speeches] == [low, high]


DOUBLES = [fake.TRANSCRIBE, fake.ALIGN, fake.TRANSLATE, fake.SPEAK, fake.SEPARATE, fake.DIARIZE]


@pytest.mark.parametrize("double", DOUBLES, ids=lambda s: s.name)
def test_a_double_costs_what_it_was_told_and_logs_each_item(double: EngineSpec, tmp_path: Any) -> None:
    log = tmp_path / "calls.jsonl"
    items = cases()[double.name].items()
    engine = double.load({"base_ms": 40, "item_ms": 20, "calls_log": str(log)})
    start = time.perf_counter()
    engine.run(items)
    assert time.perf_counter() - start >= (40 + 20 * len(items)) / 1000
    lines = log.read_text().splitlines()
    assert len(lines) == len(items)
    assert f'"batch": {len(items)}' in lines[0]


def test_a_double_that_lacks_memory_answers_all_in_halves() -> None:
    async def scenario() -> tuple[list[Any], int]:
        client = LocalClient(fake.TRANSLATE.load({"out_of_memory_above": 2}), max_batch=8, linger_s=0.05)
        items = [TranslateItem(str(i), "en", "es") for i in range(8)]
        answers = await asyncio.gather(*(client(item, lane="job") for item in items))
        batches = client.stats().batches
        await client.aclose()
        return [answer.text for answer in answers], batches

    assert asyncio.run(scenario()) == ([f"[es] {i}" for i in range(8)], 7)
