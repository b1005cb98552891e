"""Whisper's batches: pieces of any jobs in any languages, through one encoder call and one decoder call.

Each piece has a prompt of its own; words are then aligned in one call for each language. Nothing is kept from one batch
for the next, and nothing is drawn by lot: what repeats itself is decoded once more with repetitions forbidden, not with
a temperature, so the same audio gives the same words in whatever batch it is.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dubbing.engines import hallucination, probing, vad, whisper_words
from dubbing.engines.base import EngineInfo, TranscribeItem, Transcript
from dubbing.engines.hallucination import Decoding
from dubbing.errors import BadInputError, EngineBrokenError, EngineError, LanguageError

SAMPLE_RATE, WINDOW_MS, FRAMES = 16_000, 30_000, 3_000
"""Whisper looks at 30 s, 3,000 frames of 10 ms, at a time."""
PROBE_FRAMES = 100
MAX_LENGTH = 448
"""Tokens of prompt and answer that the decoder has room for."""
FIRST_STAMP = 50
"""The first timestamp lies within 1 s, in steps of 20 ms."""
AGAIN = {"repetition_penalty": 1.1, "no_repeat_ngram_size": 4}
"""How a piece is decoded again whose text repeated itself."""
PUNCTUATION = ("\"'“¿([{-", "\"'.。,，!！?？:：”)]}、")
"""Belongs to the word after it, and to the word before it."""
AUTO = "auto"
CODES = frozenset(
    re.findall(
        r"\w+",
        "af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht hu "
        "hy id is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl ps pt "
        "ro ru sa sd si sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo zh",
    )
)
"""Languages of Whisper by its own codes; large-v3 knows Cantonese as well."""
OWN_CODES = {"jv": "jw", "nb": "no", "fil": "tl", "iw": "he", "in": "id", "cmn": "zh"}
TAGS = {"jw": "jv"}

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Piece:
    """One item on its way through the model."""

    item: TranscribeItem
    code: str | None
    """Whisper's code of the language; None until it is detected."""
    spans: Sequence[tuple[int, int]]
    """Stretches of speech, ms."""
    features: npt.NDArray[np.float32] | None = None
    """Log-mel spectrogram, shape (mels, 3000); None when nobody speaks."""
    probability: float = 1.0

    @property
    def length_ms(self) -> int:
        return self.item.audio.size * 1000 // SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class _Decoded:
    tokens: tuple[int, ...]
    decoding: Decoding


class WhisperEngine:
    """Recognises pieces of up to 30 s, a batch of any languages at a time."""

    def __init__(self, info: EngineInfo, model: Any, beam_size: int = 5) -> None:
        """`model`: a loaded faster_whisper.WhisperModel."""
        from faster_whisper import transcribe  # noqa: PLC0415 - imported when it is chosen

        self.info = info
        self._model, self._beam_size = model, beam_size
        self._whisper = transcribe
        self._codes = {code for code in (*CODES, "yue") if model.hf_tokenizer.token_to_id(f"<|{code}|>") is not None}
        self._tokenizers: dict[str, Any] = {}
        self._suppressed = list(transcribe.get_suppressed_tokens(self._tokenizer("en"), [-1]))
        self._threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="whisper")

    def run(self, items: Sequence[TranscribeItem]) -> list[Transcript]:
        """Recognise pieces of speech; without speech the answer is empty.

        Raises LanguageError, BadInputError for more than 30 s, EngineError, EngineBrokenError.
        """
        pieces = list(self._threads.map(self._prepare, items))
        spoken = [piece for piece in pieces if piece.features is not None]
        found = iter(self._recognise(spoken) if spoken else [])
        return [_nothing(piece) if piece.features is None else next(found) for piece in pieces]

    def bucket(self, item: TranscribeItem) -> Hashable:
        """Any mix will do."""
        return None

    def probe(self) -> None:
        """Encode a second of sound and take one step of the decoder. Raises EngineBrokenError when no numbers come out."""
        with probing.probing(self.info.name):
            heard = self._model.feature_extractor(probing.tone(1.0, SAMPLE_RATE).astype(np.float32) / 32768)
            encoded = self._model.encode(np.ascontiguousarray(heard[None, :, :PROBE_FRAMES]))
            probing.require_numbers(self.info.name, "the encoder's answers", _array(encoded))
            [answer] = self._model.model.detect_language(encoded)
            probing.require_numbers(self.info.name, "the decoder's answers", [chance for _, chance in answer])

    def close(self) -> None:
        """Free the model's memory; calling twice is fine."""
        self._threads.shutdown()
        self._model.model.unload_model()

    def _prepare(self, item: TranscribeItem) -> _Piece:
        """What the model hears, unless nobody speaks."""
        code = self._code(item.language)
        if item.audio.size > WINDOW_MS * SAMPLE_RATE // 1000:
            detail = f"it lasts {item.audio.size / SAMPLE_RATE:.1f} s, and at most 30 s are recognised at once"
            raise BadInputError(name="audio", detail=detail)
        found = vad.speech_spans(item.audio, **vad.CLOSE) if item.speech is None else item.speech
        piece = _Piece(item, code, found)
        speech = sum(end - start for start, end in piece.spans)
        if speech and speech >= hallucination.MIN_SPEECH * piece.length_ms:
            heard = self._model.feature_extractor(item.audio.astype(np.float32) / 32768)[:, :-1][:, :FRAMES]
            piece.features = np.pad(heard, ((0, 0), (0, FRAMES - heard.shape[1])))
        return piece

    def _recognise(self, pieces: list[_Piece]) -> list[Transcript]:
        try:
            encoded = self._model.encode(np.stack([piece.features for piece in pieces if piece.features is not None]))
            self._detect(encoded, pieces)
            decoded = self._decode(encoded, pieces)
            return self._time(encoded, pieces, decoded)
        except RuntimeError as error:
            raise _failure(self.info.name, error) from error

    def _detect(self, encoded: Any, pieces: list[_Piece]) -> None:
        """Find the languages that were not said."""
        if all(piece.code for piece in pieces):
            return
        for piece, answer in zip(pieces, self._model.model.detect_language(encoded), strict=True):
            if piece.code is None:
                token, piece.probability = answer[0]
                piece.code = token[2:-2]

    def _decode(self, encoded: Any, pieces: list[_Piece]) -> list[_Decoded]:
        """The tokens of all pieces; what repeats itself is tried once more."""
        prompts = [self._tokenizer(piece.code).sot_sequence for piece in pieces]
        decoded = self._generate(encoded, prompts)
        failed = [i for i, one in enumerate(decoded) if hallucination.repetitive(one.decoding.text)]
        if failed:
            again = self._generate(_rows(encoded, failed), [prompts[i] for i in failed], **AGAIN)
            for i, other in zip(failed, again, strict=True):
                if hallucination.better(decoded[i].decoding, other.decoding):
                    decoded[i] = other
        return decoded

    def _generate(self, encoded: Any, prompts: list[list[int]], **how: Any) -> list[_Decoded]:
        results = self._model.model.generate(
            encoded,
            prompts,
            beam_size=self._beam_size,
            max_length=MAX_LENGTH,
            max_initial_timestamp_index=FIRST_STAMP,
            suppress_tokens=self._suppressed,
            return_scores=True,
            return_no_speech_prob=True,
            **how,
        )
        return [self._decoded(result) for result in results]

    def _decoded(self, result: Any) -> _Decoded:
        tokens = tuple(result.sequences_ids[0])
        # The score is the mean over the tokens; the end token counts too, as it does for Whisper's own thresholds.
        logprob = result.scores[0] * len(tokens) / (len(tokens) + 1)
        text = self._tokenizer("en").decode(list(tokens)).strip()
        return _Decoded(tokens, Decoding(text, float(logprob), float(result.no_speech_prob)))

    def _time(self, encoded: Any, pieces: list[_Piece], decoded: list[_Decoded]) -> list[Transcript]:
        """Find out when words are said, language by language, and put transcripts together."""
        parts = [self._split(piece, one.tokens) for piece, one in zip(pieces, decoded, strict=True)]
        aligned: list[Any] = [[] for _ in pieces]
        for code in sorted({piece.code for piece, split in zip(pieces, parts, strict=True) if split and piece.code}):
            members = [i for i, piece in enumerate(pieces) if piece.code == code and parts[i]]
            timings = self._model.find_alignment(
                self._tokenizer(code),
                [[token for part in parts[i] for token in part.tokens] for i in members],
                _rows(encoded, members),
                [-(-pieces[i].length_ms // 10) for i in members],
            )
            for i, timing in zip(members, timings, strict=True):
                self._whisper.merge_punctuations(timing, *PUNCTUATION)
                aligned[i] = timing
        return list(map(self._transcript, pieces, decoded, parts, aligned))

    def _split(self, piece: _Piece, tokens: Sequence[int]) -> list[whisper_words.Piece]:
        tokenizer = self._tokenizer(piece.code)
        return whisper_words.split(
            tokens,
            timestamps_from=tokenizer.timestamp_begin,
            text_below=tokenizer.eot,
            length_ms=piece.length_ms,
        )

    def _transcript(
        self, piece: _Piece, one: _Decoded, parts: list[whisper_words.Piece], timings: list[dict[str, Any]]
    ) -> Transcript:
        offset = piece.item.offset_ms
        found = whisper_words.segments(
            parts, timings, one.decoding, spans=piece.spans, length_ms=piece.length_ms, offset_ms=offset
        )
        for judged in found:
            if judged.verdict.action != "keep":
                log.info(
                    "%s at %.1f s: %s", judged.verdict.action, judged.segment.start_ms / 1000, judged.verdict.reason
                )
        language = piece.item.language
        if language == AUTO and piece.code:
            language = TAGS.get(piece.code, piece.code)
        kept = tuple(judged.segment for judged in found if judged.verdict.action != "drop")
        return Transcript(kept, language, round(piece.probability, 3))

    def _tokenizer(self, code: str | None) -> Any:
        assert code is not None, "languages are detected before anything is decoded"
        if code not in self._tokenizers:
            from faster_whisper.tokenizer import Tokenizer  # noqa: PLC0415 - imported when it is chosen

            self._tokenizers[code] = Tokenizer(self._model.hf_tokenizer, True, "transcribe", code)
        return self._tokenizers[code]

    def _code(self, tag: str) -> str | None:
        if tag == AUTO:
            return None
        primary = tag.split("-", maxsplit=1)[0].lower()
        code = OWN_CODES.get(primary, primary)
        if code not in self._codes:
            raise LanguageError(detail=f"{self.info.name} does not understand {tag}")
        return code


def _nothing(piece: _Piece) -> Transcript:
    unknown = piece.item.language == AUTO
    return Transcript((), "und", 0.0) if unknown else Transcript((), piece.item.language)


def _rows(encoded: Any, rows: list[int]) -> Any:
    """Some rows of the encoder's output; CTranslate2 cannot slice, and takes them back to its device by itself."""
    import ctranslate2  # noqa: PLC0415 - imported when it is chosen

    if len(rows) == encoded.shape[0]:
        return encoded
    return ctranslate2.StorageView.from_array(np.ascontiguousarray(_array(encoded)[rows]))


def _array(encoded: Any) -> npt.NDArray[np.float32]:
    """The encoder's output on the CPU, whatever its device and its type; shape (pieces, frames, channels)."""
    import ctranslate2  # noqa: PLC0415 - imported when it is chosen

    here = encoded.to(ctranslate2.DataType.float32).to_device(ctranslate2.Device.cpu)
    return np.asarray(here)


def _failure(name: str, error: RuntimeError) -> EngineError:
    """CUDA cannot be used any more after an error, unless it only ran out of memory."""
    text = str(error)
    broken = ("CUDA" in text or "cuBLAS" in text or "cuDNN" in text) and "out of memory" not in text
    return (EngineBrokenError if broken else EngineError)(name=name, detail=text)
