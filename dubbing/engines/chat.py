"""Translation by a chat model behind any OpenAI-compatible address: a service, or a local server such as vLLM or Ollama.

Neighbouring lines of a job are asked for together, with the lines around them; lines of different jobs never share a
request, so that no text of one can steer the translation of another.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import Field

from dubbing import config
from dubbing.engines import options as engine_options
from dubbing.engines.base import EngineInfo, EngineSpec, Languages, Located, TranslateItem, Translation
from dubbing.engines.chat_answers import PROMPT, Verdict, correction, judge, question
from dubbing.engines.chat_http import ChatService
from dubbing.errors import EngineBrokenError, EngineError, EngineMissingError

NAME = "chat"
LICENCE = "the service's terms"
_MISSING = "DUBBING_CHAT_URL and DUBBING_CHAT_MODEL are not set"
_INSTALL = "Set DUBBING_CHAT_URL, DUBBING_CHAT_MODEL and, for a service, DUBBING_CHAT_API_KEY."

Outcome = Translation | EngineError


class Options(engine_options.Options):
    """Options of `load`, from the serve config."""

    url: str | None = None
    """Base address; default is DUBBING_CHAT_URL."""
    model: str | None = None
    """Default is DUBBING_CHAT_MODEL."""
    lines_per_request: int = Field(12, ge=1, le=100)
    parallel: int = Field(8, ge=1, le=64)
    """Requests at the same time."""
    max_batch: int = Field(64, ge=1)
    """Lines the batcher gives at once."""
    timeout_s: float = Field(60.0, gt=0)
    """Longest wait for one answer."""
    patience_s: float = Field(120.0, gt=0)
    """Longest time spent on one question, waiting between tries included."""
    pairs: list[tuple[str, str]] = Field(default=[])
    """Nothing to start early here."""


class ChatEngine:
    """Translates by conversation; what cannot be mended by asking again fails for that line alone."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """See `Options`. Raises UsageError for bad ones, EngineMissingError without an address and a model."""
        given, settings = engine_options.read(Options, NAME, options), config.load()
        url, model = given.url or settings.chat_url, given.model or settings.chat_model
        if not url or not model:
            raise EngineMissingError(kind="translate", name=NAME, detail=_MISSING, install=_INSTALL)
        self._options = given
        self._service = ChatService(
            NAME, url, model, settings.chat_api_key, timeout_s=given.timeout_s, patience_s=given.patience_s
        )
        self._threads = ThreadPoolExecutor(given.parallel, thread_name_prefix=NAME)
        self._kept: dict[TranslateItem, Outcome] = {}
        self.info = EngineInfo(
            name=NAME,
            kind="translate",
            version=f"{model}@{self._service.host}+{PROMPT}",
            licence=LICENCE,
            deterministic=False,
            max_batch=given.max_batch,
            quality="best",
            note=f"Texts were sent to {self._service.host}, whose terms apply.",
        )

    def run(self, items: Sequence[TranslateItem]) -> list[Translation]:
        """Translate lines of any jobs. Raises ServiceDownError or ServiceRefusedError for all, EngineError for one line."""
        known = {item: self._kept.pop(item) for item in dict.fromkeys(items) if item in self._kept}
        new = [item for item in dict.fromkeys(items) if item not in known]
        for answered in list(self._threads.map(self._answer, chains(new, self._options.lines_per_request))):
            known |= answered
        outcomes = [known[item] for item in items]
        failures = [outcome for outcome in outcomes if isinstance(outcome, EngineError)]
        if failures:
            if len(items) > 1:
                # The batcher comes again with halves, to find the line at fault: nobody shall be asked twice for that.
                self._kept = known
            raise failures[0]
        return [outcome for outcome in outcomes if isinstance(outcome, Translation)]

    def bucket(self, item: TranslateItem) -> Hashable:
        """Any mix will do: `run` puts together what belongs together."""
        return None

    def probe(self) -> None:
        """Ask the service for its list of models, which costs nothing. Raises ServiceDownError or ServiceRefusedError."""
        self._service.probe()

    def close(self) -> None:
        """Stop waiting and let the threads end."""
        self._service.close()
        self._threads.shutdown(cancel_futures=True)

    def _answer(self, chain: Sequence[TranslateItem]) -> dict[TranslateItem, Outcome]:
        """One chain of lines: ask, ask again for what was wrong, then line by line for what still is."""
        verdicts = self._together(chain)
        found: dict[TranslateItem, Outcome] = {}
        for number, item in enumerate(chain, 1):
            verdict = verdicts[number]
            if verdict.fault and len(chain) > 1:
                verdict = self._together([item])[1]
            found[item] = (
                EngineError(name=NAME, detail=f"{self._service.model} did not translate it: {verdict.fault}")
                if verdict.fault
                else Translation(verdict.text)
            )
        return found

    def _together(self, chain: Sequence[TranslateItem]) -> dict[int, Verdict]:
        lines = dict(enumerate(chain, 1))
        messages = question(chain)
        try:
            answer = self._service.ask(messages)
            verdicts = judge(lines, answer)
            wrong = {number: verdict for number, verdict in verdicts.items() if verdict.fault or verdict.wish}
            if wrong:
                mended = self._service.ask(correction(messages, answer, wrong))
                second = judge({number: lines[number] for number in wrong}, mended, known=lines)
                verdicts |= {number: verdict.better(second[number]) for number, verdict in wrong.items()}
        except EngineBrokenError:
            raise
        except EngineError as error:
            return {number: Verdict(fault=str(error.facts.get("detail", error))) for number in lines}
        return verdicts


def chains(items: Sequence[TranslateItem], longest: int) -> list[list[TranslateItem]]:
    """Items put together with their neighbours: a line follows another of the same pair that it names as the one before it."""
    found: list[list[TranslateItem]] = []
    for item in items:
        for chain in found:
            last = chain[-1]
            if (
                len(chain) < longest
                and (item.source, item.target) == (last.source, last.target)
                and item.before[-1:] == (last.text,)
                and last.after[:1] == (item.text,)
            ):
                chain.append(item)
                break
        else:
            found.append([item])
    return found


def _locate() -> Located:
    settings = config.load()
    return Located(True) if settings.chat_url and settings.chat_model else Located(False, _MISSING, _INSTALL)


TRANSLATE = EngineSpec(
    name=NAME,
    kind="translate",
    quality="best",
    summary="Any OpenAI-compatible chat service or local server: sees the lines around, keeps to glossary and length.",
    licence=LICENCE,
    commercial_use=True,
    locate=_locate,
    languages=lambda: Languages(any=True),
    load=ChatEngine,
)
