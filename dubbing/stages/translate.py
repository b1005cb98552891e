"""translate: strictly one text for each line, checked, and never the source passed off as a translation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dubbing import glossary
from dubbing.artifacts import Manifest, fingerprint
from dubbing.engines.base import EngineClient, TranslateItem, Translation
from dubbing.engines.translation_checks import check
from dubbing.errors import EngineBrokenError, EngineError
from dubbing.stages.context import Context, Meter, in_order
from dubbing.types import Line

WINDOW = 32
"""Lines in flight: two full batches, so that the model never waits for us."""
CONTEXT_LINES = 2


@dataclass(frozen=True, slots=True)
class Translated:
    """A line in the target language."""

    text: str
    problems: tuple[str, ...] = ()
    """`empty`, `echo`, `wrong_script`, `too_long`, `glossary`: what the checks found and a retry did not mend."""


class Translate:
    """The translate stage of one target language."""

    def __init__(
        self, context: Context, target: str, engine: EngineClient[TranslateItem, Translation], meter: Meter
    ) -> None:
        self._context, self._target, self._engine, self._meter = context, target, engine, meter
        self._done = Manifest(context.folder.target(target) / "translate.jsonl")
        self._glossary = context.job.request.glossary.get(target, ())

    async def __call__(
        self,
        lines: Sequence[Line],
        budgets: Sequence[int | None],
        earlier: Sequence[Line] = (),
        later: Sequence[Line] = (),
    ) -> list[Translated]:
        """Translations in the order of the lines; budgets are characters, `earlier` and `later` the lines around."""
        texts = [line.text for line in (*earlier, *lines, *later)]
        numbered = [(i, line, budget) for i, (line, budget) in enumerate(zip(lines, budgets, strict=True))]

        async def one(entry: tuple[int, Line, int | None]) -> Translated:
            i, line, budget = entry
            at = len(earlier) + i
            before, after = texts[max(0, at - CONTEXT_LINES) : at], texts[at + 1 : at + 1 + CONTEXT_LINES]
            return await self._one(line, tuple(before), tuple(after), budget)

        return await in_order(one, numbered, WINDOW)

    async def _one(self, line: Line, before: tuple[str, ...], after: tuple[str, ...], budget: int | None) -> Translated:
        terms = glossary.occurring(self._glossary, line.text)
        item = TranslateItem(line.text, self._context.job.source_language, self._target, before, after, budget, terms)
        info = self._engine.info
        # Of the glossary only the terms in the line: a new term makes again the lines it stands in, and no others.
        told = {"glossary": terms} if terms else {}
        key = fingerprint(text=line.text, pair=[item.source, item.target], engine=[info.name, info.version], **told)
        known = self._done.get(key)
        if known is not None:
            self._context.count("translate.kept")
        else:
            known = await self._ask(item, line.index)
            if "empty" not in known["problems"]:  # a line that failed is asked for again by the next run
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
            if not problems and glossary.unmet(item.glossary, answer.text):
                problems.append("glossary")
            if len(problems) < len(best[0]) or not best[1]:
                best = (problems, answer.text.strip())
            if not problems:
                break
        return {"text": best[1], "problems": best[0]}
