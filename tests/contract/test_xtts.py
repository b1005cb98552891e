"""XTTS v2 through the real loading code, on a tiny model: batches that say what single lines say, and lines that fail alone."""

from __future__ import annotations

import asyncio
import hashlib
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubbing.engines import registry, xtts, xtts_text
from dubbing.engines.base import SpeakItem
from dubbing.engines.local import LocalClient
from dubbing.errors import (
    BadInputError,
    EngineError,
    EngineMissingError,
    LanguageError,
    UsageError,
    WeightsDamagedError,
    WeightsMissingError,
)
from dubbing.media import wav
from dubbing.types import Speech

TEXTS = ("Hola.", "Buenos días a todos los que están aquí.", "¿Qué?", "Me llamo Ana y vivo en Madrid, cerca del río.")
RATE = 24_000


def voice_wav(path: Path, hertz: float, seconds: float = 3.0) -> Path:
    """A buzz with a swell, as a stand-in for a speaker."""
    at = np.arange(int(seconds * RATE)) / RATE
    sound = sum(np.sin(2 * np.pi * hertz * k * at) / k for k in range(1, 8)) * (0.6 + 0.4 * np.sin(7 * at))
    wav.write_wav(path, (sound * 5000).astype(np.int16), RATE)
    return path


@pytest.fixture(scope="module")
def engine(tiny_xtts: Path) -> Iterator[Any]:
    loaded = xtts.SPEAK.load({"path": tiny_xtts, "threads": 1, "device": "cpu"})
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def greedy(engine: Any) -> Any:
    from dubbing.engines.xtts_decode import Sampling  # noqa: PLC0415 - torch loads for seconds

    return Sampling(repetition_penalty=5.0, greedy=True)


@pytest.fixture
def bias(engine: Any) -> Iterator[Any]:
    """The model's wish to stop, a number that a test may change."""
    head, stop = engine.model.xtts.gpt.mel_head.bias.data, engine.model.xtts.gpt.stop_audio_token
    before = float(head[stop])

    def be(value: float) -> None:
        head[stop] = value

    yield be
    head[stop] = before


def rows(engine: Any, texts: tuple[str, ...] = TEXTS, seed: int = 0) -> list[Any]:
    """Texts as rows of a decode, with the preset voices in turn."""
    voices = list(engine.model.presets.values())
    return [
        row
        for number, text in enumerate(texts)
        for row in engine.utterances(SpeakItem(text, "es", "", seed=seed), voices[number % len(voices)])
    ]


def sameness(one: Speech, other: Speech) -> int:
    """Largest difference of two clips in steps of a 16-bit sample; their lengths must be the same."""
    assert one.audio.shape == other.audio.shape
    return int(np.abs(one.audio.astype(int) - other.audio).max())


# --- equality -----------------------------------------------------------------------------------------------------


def test_greedy_tokens_and_latents_are_those_of_coqui_tts(engine: Any, greedy: Any) -> None:
    import torch  # noqa: PLC0415

    gpt = engine.model.xtts.gpt
    batch = rows(engine)
    for row, said in zip(batch, engine.model.decoder(batch, greedy), strict=True):
        text = torch.tensor(row.text)[None]
        codes = gpt.generate(row.voice, text, do_sample=False, num_beams=1, repetition_penalty=5.0)
        length = torch.tensor([codes.shape[-1] * gpt.code_stride_len])
        latents = gpt(text, torch.tensor([len(row.text)]), codes, length, cond_latents=row.voice, return_latent=True)
        stop = (gpt.stop_audio_token,) if said.stopped else ()
        assert tuple(codes[0].tolist()) == said.codes + stop
        assert torch.allclose(latents[0], said.latents, atol=1e-4)


def test_greedy_lines_decoded_together_say_what_they_say_alone(engine: Any, greedy: Any) -> None:
    decoder, batch = engine.model.decoder, rows(engine)
    together = decoder(batch, greedy)
    alone = [decoder([row], greedy)[0] for row in batch]
    assert [said.codes for said in together] == [said.codes for said in alone]
    assert len({said.codes for said in together}) == len(batch)
    assert all((a.latents - b.latents).abs().max() < 1e-4 for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize("seed", range(6))
def test_drawn_tokens_depend_on_the_seed_of_a_line_and_not_on_its_company(engine: Any, seed: int) -> None:
    decoder, batch = engine.model.decoder, rows(engine, seed=seed)
    alone = [decoder([row], engine.sampling)[0].codes for row in batch]
    assert [said.codes for said in decoder(batch, engine.sampling)] == alone
    assert [said.codes for said in decoder(batch[::-1], engine.sampling)] == alone[::-1]


def test_another_seed_is_another_reading(engine: Any) -> None:
    readings = {engine.model.decoder(rows(engine, TEXTS[1:2], seed), engine.sampling)[0].codes for seed in range(6)}
    assert len(readings) >= 4


def test_drawing_follows_temperature_top_k_and_top_p_as_transformers_does(engine: Any) -> None:
    import torch  # noqa: PLC0415
    from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor  # noqa: PLC0415
    from transformers.generation import logits_process  # noqa: PLC0415

    from dubbing.engines.xtts_decode import Sampling, pick  # noqa: PLC0415

    sampling = Sampling(0.75, 20, 0.8, 5.0)
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 66, generator=generator) * 3
    said = torch.tensor([[1, 64, 7, 9]])
    chain = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(5.0),
            logits_process.TemperatureLogitsWarper(0.75),
            logits_process.TopKLogitsWarper(20),
            logits_process.TopPLogitsWarper(0.8),
        ]
    )
    expected = chain(said, logits.clone()).softmax(-1)[0]
    draws = torch.arange(10_000) / 10_000 + 0.5 / 10_000
    mask = torch.zeros(1, 66, dtype=torch.bool).scatter_(1, said, True)
    drawn = pick(logits.expand(10_000, -1), mask.expand(10_000, -1), draws, sampling)
    assert torch.allclose(torch.bincount(drawn, minlength=66) / 10_000, expected, atol=3e-4)


def test_eight_lines_take_the_steps_of_the_longest_and_not_of_all(engine: Any) -> None:
    decoder = engine.model.decoder
    batch = rows(engine, tuple(f"{text} {n}" for n in "ab" for text in TEXTS))
    before = decoder.steps
    alone = [decoder([row], engine.sampling)[0] for row in batch]
    single = decoder.steps - before
    decoder(batch, engine.sampling)
    together = decoder.steps - before - single
    assert single == sum(len(said.latents) for said in alone)
    assert together == max(len(said.latents) for said in alone)
    assert together * 3 < single


def test_a_line_sounds_the_same_alone_and_in_a_batch(engine: Any, tmp_path: Path) -> None:
    reference = voice_wav(tmp_path / "ana.wav", 120)
    items = [SpeakItem(TEXTS[1], "es", "", reference=reference, speaker="S1"), SpeakItem("Good morning.", "en", "")]
    batch = engine.run(items)
    assert all(sameness(clip, engine.run([item])[0]) <= 2 for clip, item in zip(batch, items, strict=True))


@pytest.mark.parametrize("rate", [1.0, 1.25])
def test_a_line_sounds_as_coqui_tts_lets_it_sound(engine: Any, greedy: Any, rate: float) -> None:
    model = engine.model
    timbre = model.presets["Bob Tiny"]
    item = SpeakItem(TEXTS[1], "es", "Bob Tiny", rate)
    [said] = model.decoder(engine.utterances(item, timbre), greedy)
    direct = model.xtts.inference(
        item.text, "es", timbre.conditioning, timbre.embedding, do_sample=False, repetition_penalty=5.0, speed=rate
    )["wav"]
    ours = model.sound(said.latents, timbre, rate)
    assert ours.shape == direct.shape
    assert np.abs(ours / 32767 - np.clip(direct, -1, 1)).max() < 1e-3


# --- voices, languages, rates -------------------------------------------------------------------------------------


def test_voices_made_from_references_differ_and_are_listened_to_once(engine: Any, tmp_path: Path) -> None:
    low, high = voice_wav(tmp_path / "low.wav", 90), voice_wav(tmp_path / "high.wav", 230)
    one, other = engine.model.timbre(low, "S1"), engine.model.timbre(high, "S2")
    assert (one.conditioning - other.conditioning).abs().max() > 1e-3
    assert (one.embedding - other.embedding).abs().max() > 1e-4
    assert engine.model.timbre(low, "S1") is one
    voice_wav(low, 150, seconds=3.5)
    assert engine.model.timbre(low, "S1") is not one, "a file with other content is another voice"


def test_a_reference_is_heard_as_coqui_tts_hears_it(engine: Any, tmp_path: Path) -> None:
    import torch  # noqa: PLC0415

    model = engine.model
    path = voice_wav(tmp_path / "ana.wav", 140)
    audio = torch.from_numpy(wav.read_wav(path)[0].astype(np.float32) / 32768)[None]
    timbre = model.timbre(path, "S1")
    conditioning = model.xtts.get_gpt_cond_latents(audio, RATE, length=6, chunk_length=4)
    assert torch.allclose(timbre.conditioning, conditioning, atol=1e-4)
    # coqui-tts hears the embedding from 22.05 kHz as well, so a resampling more or less remains
    assert torch.allclose(timbre.embedding, model.xtts.get_speaker_embedding(audio, RATE), atol=5e-2)


def test_all_languages_and_voices_share_a_batch(engine: Any, greedy: Any) -> None:
    items = [SpeakItem("1 2 3", language, "") for language in sorted(xtts_text.languages())]
    timbre = engine.model.presets["Ana Tiny"]
    batch = [row for item in items for row in engine.utterances(item, timbre)]
    assert len({tuple(row.text) for row in batch}) == len(items) >= 15
    assert all(said.codes for said in engine.model.decoder(batch, greedy))
    assert {engine.bucket(item) for item in items} == {None}


def test_hindi_numbers_are_spelled_and_do_not_end_the_line(engine: Any) -> None:
    assert xtts_text.readable("50 और ३.५", "hi-IN") == "पाँच शून्य और तीन पाँच"
    assert isinstance(engine.run([SpeakItem("मेरे पास 50 हैं", "hi", "")])[0], Speech)


@pytest.mark.parametrize("language", ["xx", "sv-SE"])
def test_an_unknown_language_is_an_error_of_that_line(engine: Any, language: str) -> None:
    good, bad = engine.run([SpeakItem("Hola.", "es", ""), SpeakItem("Hej.", language, "")])
    assert isinstance(good, Speech)
    assert isinstance(bad, LanguageError)
    assert f"cannot speak {language}" in bad.message


def test_a_language_whose_reader_is_not_installed_is_not_offered() -> None:
    import importlib.util  # noqa: PLC0415

    offered = xtts.SPEAK.languages()
    for language, module in xtts_text.READERS.items():
        assert offered.can(language, language) is (importlib.util.find_spec(module) is not None)
    assert offered.can("es-MX", "es-MX")


def test_the_presets_are_listed_without_torch_after_the_speakers_own_voice(tiny_xtts: Path, use_models: Path) -> None:
    listed = xtts.voices("es")
    assert [voice.id for voice in listed] == ["clone", "Ana Tiny", "Bob Tiny"]
    assert all(voice.natural and voice.engine == "xtts-v2" for voice in listed)


def test_listing_the_presets_calls_nothing_that_a_file_names(tmp_path: Path) -> None:
    import zipfile  # noqa: PLC0415

    class Trap:
        def __reduce__(self) -> Any:
            return (tmp_path.joinpath("sprung").write_text, ("x",))

    with zipfile.ZipFile(tmp_path / "speakers_xtts.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"Eve": Trap()}))
    assert xtts.preset_names(tmp_path) == ("Eve",)
    assert not (tmp_path / "sprung").exists()
    (tmp_path / "speakers_xtts.pth").write_bytes(b"no zip at all")
    assert xtts.preset_names(tmp_path) == ()


def test_an_unknown_voice_is_an_error_and_no_voice_is_the_first_preset(engine: Any) -> None:
    first, named, unknown = engine.run([SpeakItem("Hola.", "es", voice) for voice in ("", "Ana Tiny", "Zoe")])
    assert sameness(first, named) <= 2
    assert isinstance(unknown, LanguageError)


def test_a_faster_line_is_the_same_reading_in_less_time(engine: Any) -> None:
    text, voice = TEXTS[3], "Bob Tiny"
    slow, natural, fast, out = engine.run([SpeakItem(text, "es", voice, rate) for rate in (0.8, 1.0, 1.25, 9.0)])
    assert natural.duration_ms / slow.duration_ms == pytest.approx(0.8, rel=0.1)
    assert natural.duration_ms / fast.duration_ms == pytest.approx(1.25, rel=0.1)
    assert (slow.rate, natural.rate, fast.rate, out.rate) == (0.8, 1.0, 1.25, xtts.RATE_RANGE[1])


@pytest.mark.parametrize("text", ["", "♪ ♪", "…", "\x00"])
def test_text_without_words_is_an_error_and_not_noise(engine: Any, text: str) -> None:
    assert isinstance(engine.run([SpeakItem(text, "es", "")])[0], BadInputError)


# --- long texts ---------------------------------------------------------------------------------------------------


def test_a_text_is_parted_at_sentences_then_clauses_then_words() -> None:
    text = "One two three. Four five six, seven eight nine ten. Eleven."
    assert xtts_text.pieces(text, 60) == [text]
    assert xtts_text.pieces(text, 40) == ["One two three.", "Four five six, seven eight nine ten.", "Eleven."]
    assert xtts_text.pieces("Four five six, seven eight nine ten", 24) == ["Four five six,", "seven eight nine ten"]
    assert xtts_text.pieces("今日は天気がいい。明日は雨が降る。", 10) == ["今日は天気がいい。", "明日は雨が降る。"]
    assert xtts_text.pieces("a" * 25, 10) == ["a" * 6, "a" * 6, "a" * 6, "a" * 7]
    assert xtts_text.pieces("3.5 and 1,000", 9) == ["3.5", "and 1,000"]


def test_no_piece_is_too_long_and_no_letter_is_lost() -> None:
    text = " ".join(f"Palabra{n}, otra{n}." for n in range(60))
    parts = xtts_text.pieces(text, 70)
    assert " ".join(parts) == text
    assert max(map(len, parts)) <= 70


def test_a_long_line_is_spoken_in_pieces_with_a_pause_between(engine: Any) -> None:
    text = "Una frase de prueba con muchas palabras que decir. " * 8
    [speech] = engine.run([SpeakItem(text, "es", "")])
    silent = np.abs(speech.audio) == 0
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], silent.astype(np.int8), [0]]))))[::2]
    assert (runs >= 0.19 * RATE).sum() >= 1
    assert len(engine.utterances(SpeakItem(text, "es", ""), next(iter(engine.model.presets.values())))) == 2


# --- lines that fail ----------------------------------------------------------------------------------------------


def test_a_voice_that_stops_at_once_fails_its_line_even_when_it_should_hurry(engine: Any, bias: Any) -> None:
    bias(1e4)
    for error in engine.run([SpeakItem("Hola.", "es", "", 1.3), SpeakItem("Hola.", "es", "")]):
        assert isinstance(error, EngineError)
        assert "before it had said anything" in error.message


def test_a_voice_that_finds_no_end_is_cut_and_fails_its_line(engine: Any, bias: Any) -> None:
    bias(-1e4)
    [error] = engine.run([SpeakItem("Hola.", "es", "")])
    assert isinstance(error, EngineError)
    assert "found no end and was cut after 1.9 s" in error.message


def test_how_long_a_line_may_go_on_depends_on_its_text(engine: Any) -> None:
    assert engine.most_codes("Sí.", "es") <= engine.most_codes("Sí, señor, ahora mismo voy.", "es")
    engine.model.max_codes, before = 600, engine.model.max_codes
    try:
        short, long = (engine.most_codes(text, "es") for text in ("Sí.", "Sí, señor, ahora mismo voy a la tienda."))
        assert 2 < short / engine.model.codes_per_s < 4 < long / engine.model.codes_per_s < 12
        assert engine.most_codes("palabra " * 200, "es") == 600
    finally:
        engine.model.max_codes = before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "has gone"),
        (b"RIFF????WAVEjunk", "not a 16-bit PCM WAV"),
        (b"", "not a 16-bit PCM WAV"),
        (0.1, "at least 0.5 s"),
    ],
)
def test_a_reference_that_is_no_voice_fails_its_line_alone(
    engine: Any, tmp_path: Path, content: bytes | float | None, said: str
) -> None:
    path = tmp_path / "S1.wav"
    if isinstance(content, float):
        voice_wav(path, 100, content)
    elif content is not None:
        path.write_bytes(content)
    bad, good = engine.run([SpeakItem("Hola.", "es", "", reference=path), SpeakItem("Hola.", "es", "")])
    assert isinstance(bad, BadInputError)
    assert said in bad.message
    assert isinstance(good, Speech)


def test_a_batch_that_does_not_fit_into_memory_is_halved_and_succeeds(tiny_xtts: Path) -> None:
    import torch  # noqa: PLC0415

    engine: Any = xtts.SPEAK.load({"path": tiny_xtts, "threads": 1, "max_batch": 4})

    def crowded(module: Any, given: Any) -> None:
        if given[0].shape[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    engine.model.xtts.gpt.mel_head.register_forward_pre_hook(crowded)

    async def scenario() -> tuple[list[Any], int]:
        client = LocalClient(engine, linger_s=0.2)
        answers = await asyncio.gather(*(client(SpeakItem(text, "es", ""), lane="job") for text in TEXTS))
        batches = client.stats().batches
        await client.aclose()
        return list(answers), batches

    answers, batches = asyncio.run(scenario())
    assert all(isinstance(answer, Speech) for answer in answers)
    assert batches == 3


# --- loading ------------------------------------------------------------------------------------------------------


def test_the_published_checkpoint_is_read_where_it_lies_and_left_as_it_is(tiny_xtts: Path, tmp_path: Path) -> None:
    from trainer.io import load_fsspec  # noqa: PLC0415

    folder = shutil.copytree(tiny_xtts, tmp_path / "xtts")
    checkpoint = folder / "model.pth"
    with pytest.raises(pickle.UnpicklingError):
        load_fsspec(checkpoint)  # so coqui-tts itself would write it anew
    for path in (*folder.iterdir(), folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = (hashlib.sha256(checkpoint.read_bytes()).digest(), checkpoint.stat().st_mtime_ns)
    xtts.SPEAK.load({"path": folder, "threads": 1}).close()
    assert (hashlib.sha256(checkpoint.read_bytes()).digest(), checkpoint.stat().st_mtime_ns) == before
    folder.chmod(0o755)


def test_threads_are_set_as_asked(tiny_xtts: Path, engine: Any) -> None:
    import torch  # noqa: PLC0415

    xtts.SPEAK.load({"path": tiny_xtts, "threads": 2}).close()
    assert torch.get_num_threads() == 2
    xtts.SPEAK.load({"path": tiny_xtts, "threads": 1}).close()
    assert torch.get_num_threads() == 1


def test_the_version_changes_with_the_weights_and_with_the_drawing(tiny_xtts: Path, engine: Any) -> None:
    version = engine.info.version
    cooler = xtts.SPEAK.load({"path": tiny_xtts, "threads": 1, "temperature": 0})
    assert cooler.info.version != version
    (tiny_xtts / "files.json").write_text('{"repo": "coqui/XTTS-v2", "revision": "abc", "files": {}}')
    try:
        assert xtts.SPEAK.load({"path": tiny_xtts, "threads": 1}).info.version != version
    finally:
        (tiny_xtts / "files.json").unlink()


def test_weights_that_are_missing_cut_short_or_of_something_else_are_errors_of_their_own(
    tiny_xtts: Path, tmp_path: Path
) -> None:
    with pytest.raises(WeightsMissingError, match=r"has no config\.json"):
        xtts.SPEAK.load({"path": tmp_path})
    for name in ("model.pth", "config.json", "vocab.json", "speakers_xtts.pth"):
        folder = shutil.copytree(tiny_xtts, tmp_path / f"cut-{name}")
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(WeightsDamagedError, match="are damaged") as caught:
            xtts.SPEAK.load({"path": folder, "threads": 1})
        assert "dub models verify xtts-v2" in caught.value.advice


def test_a_gpu_that_is_asked_for_and_not_there_is_an_error(tiny_xtts: Path) -> None:
    import torch  # noqa: PLC0415

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(EngineMissingError, match="torch finds no usable GPU"):
        xtts.SPEAK.load({"path": tiny_xtts, "device": "cuda"})


@pytest.mark.parametrize("options", [{"speed": 2}, {"device": "tpu"}, {"threads": 0}, {"top_p": 3}])
def test_an_option_that_is_unknown_or_wrong_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"option {next(iter(options))}"):
        xtts.SPEAK.load(options)


def test_locating_says_what_to_fetch(tiny_xtts: Path, use_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dubbing.engines import weights  # noqa: PLC0415

    assert xtts.SPEAK.locate().ok
    monkeypatch.setenv("DUBBING_MODELS_DIR", str(use_models / "nothing"))
    weights.home.cache_clear()
    located = xtts.SPEAK.locate()
    assert (located.ok, located.install) == (False, "dub models fetch xtts-v2")


def test_the_registry_knows_it_as_a_voice_that_clones_and_may_not_be_sold() -> None:
    spec = registry.spec("xtts-v2")
    assert (spec.clones, spec.commercial_use, spec.weights and spec.weights.commercial_use) == (True, False, False)


def test_half_precision_stays_close_to_full(tiny_xtts: Path, engine: Any, greedy: Any) -> None:
    from dubbing.engines.xtts_model import XttsModel  # noqa: PLC0415

    half = XttsModel(tiny_xtts, "cpu", half=True)
    batch = rows(engine)
    full, rough = engine.model.decoder(batch, greedy), half.decoder(batch, greedy)
    same = [a for a, b in zip(full, rough, strict=True) if a.codes == b.codes]
    assert len(same) >= len(batch) - 1
    assert (full[0].latents[0] - rough[0].latents[0]).abs().max() < 0.05
