"""The translate stage: what it tells engines, and when a line is made again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from dubbing.artifacts import JobFolder
from dubbing.engines.base import EngineInfo, Engines, TranslateItem, Translation
from dubbing.errors import EngineError
from dubbing.stages.context import Context, Feed, LocalLeaf, Meter
from dubbing.stages.target import BLOCK_LINES, _blocks
from dubbing.stages.translate import Translate, Translated
from dubbing.types import DubRequest, Job, Line, MediaInfo, Stage

TERMS = (("Ray", "Ray"), ("replica", "réplica"))


class Recorder:
    """An engine client that remembers what it was asked and answers by rule."""

    def __init__(self, answers: dict[str, str] | None = None, broken: Sequence[str] = ()) -> None:
        self.info = EngineInfo("recorder", "translate", "1", "Apache-2.0", deterministic=False)
        self.items: list[TranslateItem] = []
        self._answers, self._broken = answers or {}, broken

    async def __call__(self, item: TranslateItem, *, lane: str) -> Translation:
        self.items.append(item)
        if item.text in self._broken:
            raise EngineError(name="recorder", detail="not this one")
        return Translation(self._answers.get(item.text, f"<{item.text}>"))

    async def aclose(self) -> None:
        """Nothing to let go of."""


def job(folder: Path, glossary: tuple[tuple[str, str], ...] = ()) -> Job:
    request = DubRequest(folder / "a.mp4", ("es",), folder, glossary={"es": glossary})
    info = MediaInfo("wav", 1000, 0, None, (), 1)
    return Job("j1", request, folder, "s", info, "en", (), {})


def lines(*texts: str) -> list[Line]:
    return [Line(i, i * 2000, i * 2000 + 1500, text) for i, text in enumerate(texts)]


def translate(
    folder: Path, engine: Recorder, asked: list[Line], glossary: tuple[tuple[str, str], ...] = (), **around: list[Line]
) -> list[Translated]:
    context = Context(
        job(folder, glossary), JobFolder(folder), Engines(), LocalLeaf(), lambda _: None, logging.getLogger("t")
    )
    stage = Translate(context, "es", engine, Meter(context, Stage.TRANSLATE, "es"))
    return asyncio.run(stage(asked, [20 + line.index for line in asked], **around))


def test_a_line_is_told_its_neighbours_budget_and_the_terms_in_it(tmp_path: Path) -> None:
    engine = Recorder()
    near, far = lines("earlier", "just before"), lines("just after", "later", "too far")
    translate(tmp_path, engine, lines("Ray is here.", "Each replica waits."), TERMS, earlier=near, later=far)
    by_text = {item.text: item for item in engine.items}
    first, second = by_text["Ray is here."], by_text["Each replica waits."]
    assert (first.before, first.after) == (("earlier", "just before"), ("Each replica waits.", "just after"))
    assert (second.before, second.after) == (("just before", "Ray is here."), ("just after", "later"))
    assert (first.max_chars, second.max_chars) == (20, 21)
    assert (first.glossary, second.glossary) == ((("Ray", "Ray"),), (("replica", "réplica"),))


def test_a_translation_without_the_term_is_asked_for_twice_and_flagged(tmp_path: Path) -> None:
    engine = Recorder({"Each replica waits.": "Cada copia espera.", "Ray is here.": "Ray está aquí."})
    found = translate(tmp_path, engine, lines("Ray is here.", "Each replica waits."), TERMS)
    assert [text.problems for text in found] == [(), ("glossary",)]
    assert len(engine.items) == 3


def test_a_new_term_makes_again_only_the_lines_it_stands_in(tmp_path: Path) -> None:
    asked = lines("Ray is here.", "Each replica waits.", "Nothing special.")
    translate(tmp_path, Recorder(), asked)
    engine = Recorder()
    translate(tmp_path, engine, asked, (("replica", "réplica"),))
    assert {item.text for item in engine.items} == {"Each replica waits."}


def test_a_line_that_failed_is_asked_for_again_by_the_next_run(tmp_path: Path) -> None:
    asked = lines("Good.", "Bad.")
    assert translate(tmp_path, Recorder(broken=["Bad."]), asked)[1] == Translated("", ("empty",))
    engine = Recorder()
    assert translate(tmp_path, engine, asked)[1] == Translated("<Bad.>")
    assert [item.text for item in engine.items] == ["Bad."]


def test_blocks_of_lines_know_the_lines_around_them() -> None:
    async def blocks() -> list[tuple[list[str], list[str], list[str]]]:
        feed: Feed[Line] = Feed()
        feed.extend(lines(*(f"l{i}" for i in range(3 * BLOCK_LINES))))
        feed.close()
        found = [block async for block in _blocks(feed, 10**6)]
        return [tuple([line.text for line in part] for part in (b.earlier, b.lines, b.later)) for b in found]

    found = asyncio.run(blocks())
    assert len(found) > 1
    spoken = [text for _, own, _ in found for text in own]
    at = 0
    for earlier, own, later in found:
        assert earlier == spoken[max(0, at - 2) : at]
        at += len(own)
        assert later == spoken[at : at + len(later)]
        assert 1 <= len(later) <= 2 or at == len(spoken)
