from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dubbing.engines import registry
from dubbing.errors import EngineMissingError, UsageError

OWN = {
    "apertium",
    "espeak-ng",
    "fake-align",
    "fake-speak",
    "fake-transcribe",
    "fake-translate",
    "pocketsphinx",
    "pocketsphinx-align",
    "xtts-v2",
}
PLUGIN = """
from dubbing.engines.fake import SPEAK
from dataclasses import replace
GOOD = replace(SPEAK, name="third-good")
RENAMED = SPEAK
NOT_A_SPEC = "a text"
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A third party's package, half of which is broken."""
    (tmp_path / "third_party_voices.py").write_text(PLUGIN)
    (tmp_path / "third_party_crash.py").write_text("raise RuntimeError('no licence key')")
    info = tmp_path / "third_party-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[dubbing.engines]\n"
        "third-good = third_party_voices:GOOD\n"
        "third-crash = third_party_crash:SPEC\n"
        "third-gone = third_party_nowhere:SPEC\n"
        "third-text = third_party_voices:NOT_A_SPEC\n"
        "third-renamed = third_party_voices:RENAMED\n"
        "espeak-ng = third_party_voices:GOOD\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for module in ("third_party_voices", "third_party_crash"):
        sys.modules.pop(module, None)


def test_all_own_engines_are_registered_and_load() -> None:
    assert set(registry.names()) >= OWN
    assert registry.broken() == []
    assert {s.name for s in registry.specs()} >= OWN
    assert {s.name for s in registry.specs("speak")} == {"espeak-ng", "fake-speak", "xtts-v2"}


def test_a_third_party_engine_is_found(plugin: None) -> None:
    assert registry.spec("third-good").name == "third-good"


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("third-crash", "RuntimeError: no licence key"),
        ("third-gone", "ModuleNotFoundError"),
        ("third-text", "is a str, not an EngineSpec"),
        ("third-renamed", "calls itself fake-speak"),
    ],
)
def test_a_broken_plug_in_is_an_error_that_names_it_and_its_package(plugin: None, name: str, detail: str) -> None:
    with pytest.raises(EngineMissingError, match=detail) as caught:
        registry.spec(name)
    assert name in caught.value.message
    assert caught.value.advice == "Update or uninstall the package third-party."


def test_broken_plug_ins_do_not_hide_the_others_and_are_reported(
    plugin: None, caplog: pytest.LogCaptureFixture
) -> None:
    assert {s.name for s in registry.specs()} >= OWN | {"third-good"}
    assert "third-crash" in caplog.text
    assert {e.facts["name"] for e in registry.broken()} == {
        "third-crash",
        "third-gone",
        "third-text",
        "third-renamed",
    }


def test_a_plug_in_cannot_take_the_name_of_an_own_engine(plugin: None, caplog: pytest.LogCaptureFixture) -> None:
    assert registry.spec("espeak-ng").summary.startswith("Robotic voices")
    assert "third-party offers a second engine espeak-ng" in caplog.text


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="no engine named espeak; did you mean espeak-ng"):
        registry.spec("espeak")
    with pytest.raises(UsageError, match="there are: "):
        registry.spec("zzzz")


def test_the_survey_gives_facts_and_starts_nothing() -> None:
    found = {c.spec.name: c for c in registry.survey("speak")}
    assert found["fake-speak"].located.ok
    assert found["fake-speak"].languages.can("tlh", "tlh")


def test_looking_for_engines_imports_no_model_library() -> None:
    program = (
        "import sys; from dubbing.engines import registry, choose; registry.survey('transcribe'); registry.specs();"
        "heavy = {'torch', 'onnxruntime', 'ray', 'ctranslate2', 'faster_whisper', 'av', 'pocketsphinx'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "[]", done.stderr
