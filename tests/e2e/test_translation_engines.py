"""`dub run` with a neural translator and with a chat service: what they say ends up in the subtitles and the report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dubbing import subtitles
from tests.chat_server import chat_server
from tests.e2e import jobs

CUES = [
    (200, 1900, "Hello world."),
    (2000, 3900, "This is a small test of the pipeline."),
    (4000, 5800, "Good morning everyone, thank you for watching!"),
]


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds of sound with a transcript and a glossary beside it."""
    path = tmp_path_factory.mktemp("talk") / "talk.wav"
    jobs.programme(path, 6)
    path.with_suffix(".srt").write_text(jobs.srt(CUES))
    path.with_suffix(".csv").write_text("pipeline,tubería\nworld,mundo\n")
    return path


def dub(talk: Path, engine: str, cwd: Path, **env: str) -> tuple[list[str], dict[str, Any]]:
    """Texts of the Spanish subtitles, and the report."""
    options = ["--to", "es", "--transcript", talk.with_suffix(".srt"), "--glossary", talk.with_suffix(".csv")]
    command = ["run", talk, *options, "--in-process", "--engine", f"translate={engine}"]
    done = subprocess.run(
        [sys.executable, "-m", "dubbing.cli", *map(str, command)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | env,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    folder = cwd / "Output" / "talk"
    cues = subtitles.read_subtitles(folder / "talk.es.srt")
    return [cue.text for cue in cues], json.loads((folder / "report.json").read_text())


def test_a_neural_translator_dubs_and_a_term_it_does_not_keep_is_reported(
    talk: Path, translation_models: Path, tmp_path: Path
) -> None:
    texts, report = dub(talk, "nllb-600m", tmp_path)
    assert texts == [
        "Hola mundo.",
        "Esto es una pequeña prueba de la cadena.",
        "Buenos días todos, gracias usted por mirar!",
    ]
    [engine] = [each for each in report["engines"] if each["kind"] == "translate"]
    assert (engine["name"], engine["weights_licence"], engine["commercial_use"]) == ("nllb-600m", "CC-BY-NC-4.0", False)
    assert report["targets"]["es"]["problems"]["glossary"] == 1
    assert "es: 1 of 3 lines lack a term of the glossary: 2" in report["warnings"]


def test_the_lists_of_languages_and_engines_know_the_models_that_are_here(
    translation_models: Path, tmp_path: Path
) -> None:
    def listed(what: str) -> Any:
        command = [sys.executable, "-m", "dubbing.cli", what, "--json"]
        return json.loads(subprocess.run(command, capture_output=True, cwd=tmp_path, timeout=120, check=True).stdout)

    swahili = next(row for row in listed("languages")["pairs"] if row["from"] == "sw")
    assert {"es", "en", "zh"} <= set(swahili["to"]) and "sw" not in swahili["to"]
    engines = {row["name"]: row for row in listed("engines")}
    nllb = engines["nllb-600m"]
    assert (nllb["here"], nllb["weights_licence"], nllb["commercial_use"]) == (True, "CC-BY-NC-4.0", False)
    assert engines["nllb-3.3b"]["install"] == "dub models fetch nllb-3.3b"


def test_a_chat_service_sees_the_talk_as_a_whole_and_keeps_to_the_glossary(talk: Path, tmp_path: Path) -> None:
    spanish = {
        CUES[0][2]: "Hola, mundo.",
        CUES[1][2]: "Una prueba de la tubería.",
        CUES[2][2]: "Buenos días y gracias por vernos.",
    }

    def script(asked: Any) -> str:
        rows = [{"id": number, "text": spanish[text]} for number, text in asked.texts.items()]
        return json.dumps({"lines": rows})

    with chat_server(script) as server:
        texts, report = dub(talk, "chat", tmp_path, DUBBING_CHAT_URL=server.url, DUBBING_CHAT_MODEL="tiny-chat")
    assert texts == list(spanish.values())
    assert "glossary" not in report["targets"]["es"]["problems"]
    [asked] = server.asked
    assert asked.document["glossary"] == {"pipeline": "tubería", "world": "mundo"}
    assert all(line["max_chars"] > 0 for line in asked.document["lines"])
