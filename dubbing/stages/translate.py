"""translate: strictly one text for each line, checked, and never the source passed off as a translation."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dubbing.artifacts import Manifest, fingerprint
from dubbing.engines.base import EngineClient, TranslateItem, Translation
from dubbing.errors import EngineBrokenError, EngineError
from dubbing.stages.context import Context, Meter, in_order
from dubbing.types import Line

WINDOW = 32
"""Lines in flight: two full batches, so that the model never waits for us."""
CONTEXT_LINES = 2
_SCRIPTS = {
    "CYRILLIC": ("ru", "uk", "bg", "mk", "be", "kk", "ky", "mn"),
    "GREEK": ("el",),
    "ARABIC": ("ar", "fa", "ur"),
    "HEBREW": ("he", "yi"),
    "DEVANAGARI": ("hi", "mr", "ne"),
    "HANGUL": ("ko",),
    "CJK": ("zh",),
    "THAI": ("th",),
}
_SCRIPT_OF = {language: script for script, languages in _SCRIPTS.items() for language in languages}


@dataclass(frozen=True, slots=True)
class Translated:
    """A line in the target language."""

    text: str
    problems: tuple[str, ...] = ()
    """`empty`, `echo`, `wrong_script`, `too_long`: what the checks found and a retry did not mend."""


class Translate:
    """The translate stage of one target language."""

    def __init__(
        self, context: Context, target: str, engine: EngineClient[TranslateItem, Translation], meter: Meter
    ) -> None:
        self._context, self._target, self._engine, self._meter = context, target, engine, meter
        self._done = Manifest(context.folder.target(target) / "translate.jsonl")

    async def __call__(self, lines: Sequence[Line], budgets: Sequence[int | None]) -> list[Translated]:
        """Translations in the order of the lines; budgets are characters."""
        numbered = [(i, line, budget) for i, (line, budget) in enumerate(zip(lines, budgets, strict=True))]

        async def one(entry: tuple[int, Line, int | None]) -> Translated:
            i, line, budget = entry
            before = tuple(near.text for near in lines[max(0, i - CONTEXT_LINES) : i])
            after = tuple(near.text for near in lines[i + 1 : i + 1 + CONTEXT_LINES])
            return await self._one(line, before, after, budget)

        return await in_order(one, numbered, WINDOW)

    async def _one(self, line: Line, before: tuple[str, ...], after: tuple[str, ...], budget: int | None) -> Translated:
        item = TranslateItem(line.text, self._context.job.source_language, self._target, before, after, budget)
        info = self._engine.info
        key = fingerprint(text=line.text, pair=[item.source, item.target], engine=[info.name, info.version])
        known = self._done.get(key)
        if known is not None:
            self._context.count("translate.kept")
        else:
            known = await self._ask(item, line.index)
            self._done.put(key, known)
        self._meter.tick()
        return Translated(known["text"], tuple(known["problems"]))

    async def _ask(self, item: TranslateItem, index: int) -> dict[str, Any]:
        """Ask once, and once more when the answer is bad and the engine might answer differently."""
        best: tuple[list[str], str] = (["empty"], "")
        for _ in range(1 if self._engine.info.deterministic else 2):
            try:
                with self._context.trace.span("translate", f"line {index + 1}"):
                    answer = await self._engine(item, lane=self._context.job.id)
            except EngineBrokenError:
                raise
            except EngineError as error:
                self._context.log.warning("line %d was not translated: %s", index + 1, error)
                continue
            finally:
                self._context.count("translate.called")
            problems = check(item.text, answer.text, item.source, item.target)
            if len(problems) < len(best[0]) or not best[1]:
                best = (problems, answer.text.strip())
            if not problems:
                break
        return {"text": best[1], "problems": best[0]}


def check(text: str, translated: str, source: str, target: str) -> list[str]:
    """What is wrong with a translation, as far as that can be seen without knowing the languages."""
    ours, theirs = translated.strip(), text.strip()
    if not any(c.isalnum() for c in ours):
        return ["empty"] if any(c.isalnum() for c in theirs) else []
    problems = []
    same = source.split("-", maxsplit=1)[0] == target.split("-", maxsplit=1)[0]
    if not same and len(theirs.split()) > 3 and _plain(ours) == _plain(theirs):
        problems.append("echo")
    if len(ours) > 3 * len(theirs) + 40:
        problems.append("too_long")
    expected = _SCRIPT_OF.get(target.split("-", maxsplit=1)[0])
    letters = [c for c in ours if c.isalpha()]
    if expected and len(letters) > 3 and sum(expected in unicodedata.name(c, "") for c in letters) < len(letters) / 2:
        problems.append("wrong_script")
    return problems


def _plain(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())
