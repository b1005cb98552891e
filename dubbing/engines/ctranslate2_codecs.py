"""Text to tokens and back for each family of translation models, with the lightest tokenizer that is right.

A sequence-to-sequence model is told languages by tokens: before the source, before the target, or not at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from dubbing.engines import translation_languages as languages
from dubbing.errors import LanguageError

_END = "</s>"
_CODE = re.compile(r"<2(?=\w+>)")
"""What would be taken for a language code in the text of a line."""
_FLORES = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")


class Codec(Protocol):
    """Tokens of one checkpoint."""

    def encode(self, text: str, source: str, target: str) -> list[str]:
        """Tokens of a source sentence with all that goes around it; tags are BCP-47. Raises LanguageError."""
        ...

    def prefix(self, target: str) -> list[str]:
        """Tokens the decoder is given to begin with; empty when it needs none. Raises LanguageError."""
        ...

    def decode(self, tokens: Sequence[str]) -> str:
        """Text of an answer, prefix and special tokens left out."""
        ...


class NllbCodec:
    """NLLB-200: `eng_Latn ... </s>` in, the target's code first out; `tokenizer.json` by the library `tokenizers`."""

    files = ("tokenizer.json",)

    def __init__(self, place: Path, name: str) -> None:
        from tokenizers import Tokenizer  # noqa: PLC0415 - heavy, and only for who translates

        self._name = name
        # From bytes the library raises ValueError for a damaged file, from a path a bare Exception.
        self._tokenizer = Tokenizer.from_buffer((place / self.files[0]).read_bytes())

    def encode(self, text: str, source: str, target: str) -> list[str]:
        """See Codec."""
        code = self._code(languages.nllb(source) or languages.nllb(languages.parse(source).language), source)
        self.prefix(target)
        return [code, *self._tokenizer.encode(text, add_special_tokens=False).tokens, _END]

    def prefix(self, target: str) -> list[str]:
        """See Codec."""
        return [self._code(languages.nllb(target), target)]

    def decode(self, tokens: Sequence[str]) -> str:
        """See Codec."""
        known = (self._tokenizer.token_to_id(token) for token in tokens if not _FLORES.fullmatch(token))
        return str(self._tokenizer.decode([number for number in known if number is not None])).strip()

    def _code(self, code: str | None, tag: str) -> str:
        if code is None or self._tokenizer.token_to_id(code) is None:
            raise _unknown(self._name, tag)
        return code


class M2m100Codec:
    """M2M-100: `__en__ ... </s>` in, `__es__` first out; sentencepiece, its codes beside the sentencepiece vocabulary."""

    files = ("sentencepiece.bpe.model",)

    def __init__(self, place: Path, name: str) -> None:
        self._name, self._pieces = name, _sentencepiece(place / self.files[0])

    def encode(self, text: str, source: str, target: str) -> list[str]:
        """See Codec."""
        code = languages.m2m100(source) or languages.m2m100(languages.parse(source).language)
        self.prefix(target)
        return [_required(code, self._name, source, "__{}__"), *self._pieces.encode(text, out_type=str), _END]

    def prefix(self, target: str) -> list[str]:
        """See Codec."""
        return [_required(languages.m2m100(target), self._name, target, "__{}__")]

    def decode(self, tokens: Sequence[str]) -> str:
        """See Codec."""
        return _text(self._pieces, [token for token in tokens if not re.fullmatch(r"__\w+__|madeupword\d+", token)])


class Madlad400Codec:
    """MADLAD-400 (T5): `<2es> ... </s>` in, nothing told to the decoder; the source language is the model's own guess."""

    files = ("sentencepiece.model",)

    def __init__(self, place: Path, name: str) -> None:
        self._name, self._pieces = name, _sentencepiece(place / self.files[0])

    def encode(self, text: str, source: str, target: str) -> list[str]:
        """See Codec."""
        _required(
            languages.madlad400(source) or languages.madlad400(languages.parse(source).language),
            self._name,
            source,
            "{}",
        )
        token = _required(languages.madlad400(target), self._name, target, "<2{}>")
        if self._pieces.piece_to_id(token) == self._pieces.unk_id():
            raise _unknown(self._name, target)
        # As one text, as in training: what stands before the code is up to the model's own sentencepiece rules.
        return [*self._pieces.encode(f"{token} {_CODE.sub('<', text)}", out_type=str), _END]

    def prefix(self, target: str) -> list[str]:
        """See Codec."""
        return []

    def decode(self, tokens: Sequence[str]) -> str:
        """See Codec."""
        return _text(self._pieces, tokens)


class MarianCodec:
    """OPUS-MT: one checkpoint a pair, a sentencepiece model for each side.

    Checkpoints whose target has variants know a token for each, such as `>>cmn_Hant<<`; it goes before the source.
    """

    files = ("source.spm", "target.spm")

    def __init__(self, place: Path, name: str) -> None:
        self._source, self._target = (_sentencepiece(place / file) for file in self.files)
        vocabulary = json.loads((place / "shared_vocabulary.json").read_text(encoding="utf-8"))
        self._variants = frozenset(token for token in vocabulary if re.fullmatch(r">>\w+<<", token))

    def encode(self, text: str, source: str, target: str) -> list[str]:
        """See Codec."""
        asked = languages.parse(target)
        names = [f"cmn_{asked.script}", {"pt-BR": "pob"}.get(f"{asked.language}-{asked.region}", ""), asked.language]
        names.append((languages.nllb(target) or "")[:3])
        variant = [f">>{name}<<" for name in names if f">>{name}<<" in self._variants]
        return [*variant[:1], *self._source.encode(text, out_type=str), _END]

    def prefix(self, target: str) -> list[str]:
        """See Codec."""
        return []

    def decode(self, tokens: Sequence[str]) -> str:
        """See Codec."""
        return _text(self._target, tokens)


MakeCodec = Callable[[Path, str], Codec]
"""(model folder, engine name) -> its codec. Raises OSError, RuntimeError or ValueError when a file is damaged."""


def _sentencepiece(path: Path) -> Any:
    import sentencepiece  # noqa: PLC0415 - in an extra, and only for who translates

    return sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())


def _text(pieces: Any, tokens: Sequence[str]) -> str:
    return str(pieces.decode([token for token in tokens if token not in ("<pad>", "<s>", _END)])).strip()


def _required(code: str | None, name: str, tag: str, form: str) -> str:
    if code is None:
        raise _unknown(name, tag)
    return form.format(code)


def _unknown(name: str, tag: str) -> LanguageError:
    return LanguageError(detail=f"The engine {name} does not know {tag}, or not in that script")
