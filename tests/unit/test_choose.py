from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest

from dubbing.engines.base import EngineSpec, Kind, Languages, Located
from dubbing.engines.choose import Candidate, choose
from dubbing.engines.weights import Weights
from dubbing.errors import EngineMissingError, LanguageError, LicenceError, UsageError


def candidate(
    name: str,
    quality: Literal["draft", "good", "best"] = "draft",
    kind: Kind = "translate",
    *,
    pairs: str = "en>es es>en",
    missing: str = "",
    commercial: bool = True,
    hidden: bool = False,
) -> Candidate:
    def load(options: Any) -> Any:
        raise AssertionError("choosing must not load an engine")

    languages = Languages(frozenset((p.split(">")[0], p.split(">")[1]) for p in pairs.split()))
    spec = EngineSpec(
        name=name,
        kind=kind,
        quality=quality,
        summary="",
        licence="MIT" if commercial else "CC-BY-NC-4.0",
        commercial_use=commercial,
        locate=lambda: Located(True),
        languages=lambda: languages,
        load=load,
        hidden=hidden,
    )
    return Candidate(spec, Located(not missing, missing, f"install {name}" if missing else ""), languages)


def picked(candidates: list[Candidate], **wishes: Any) -> tuple[str, str]:
    choice = choose(candidates, **({"kind": "translate", "source": "en", "target": "es"} | wishes))
    return choice.spec.name, choice.reason


def test_auto_takes_the_best_engine_that_is_here() -> None:
    name, reason = picked([candidate("rules"), candidate("nmt", "good")])
    assert name == "nmt"
    assert reason == "nmt translates en to es: the best that is installed here (good quality)."


def test_auto_falls_to_draft_when_the_better_one_is_missing_and_says_so() -> None:
    name, reason = picked([candidate("rules"), candidate("nmt", "good", missing="its weights are not here")])
    assert name == "rules"
    assert "nmt would be better, but its weights are not here (install nmt)" in reason


def test_an_explicit_quality_asks_for_weights_before_it_asks_for_anything_else() -> None:
    away = {"missing": "it is not here"}
    service, model = candidate("a-service", "best", **away), candidate("model", "best", **away)
    weights = Weights("model", "hub/model", ("model.bin",), "MIT", True, 1)
    model = replace(model, spec=replace(model.spec, weights=weights))
    with pytest.raises(EngineMissingError, match="engine model cannot"):
        picked([candidate("rules"), service, model], quality="best")


def test_auto_explains_the_nearest_better_engine_and_only_names_the_others() -> None:
    away = {"missing": "its weights are not here"}
    _, reason = picked([candidate("rules"), candidate("big", "best", **away), candidate("nmt", "good", **away)])
    assert reason.endswith(
        "nmt would be better, but its weights are not here (install nmt); so would big (see `dub engines`)."
    )


def test_auto_passes_over_a_better_engine_that_cannot_do_the_languages() -> None:
    name, _ = picked([candidate("rules"), candidate("nmt", "good", pairs="en>de")])
    assert name == "rules"


def test_region_subtags_do_not_matter() -> None:
    assert picked([candidate("rules")], source="en-GB", target="es-MX")[0] == "rules"


def test_an_explicit_quality_takes_that_quality_even_if_a_better_engine_is_here() -> None:
    engines = [candidate("rules"), candidate("nmt", "good"), candidate("giant", "best")]
    assert [picked(engines, quality=q)[0] for q in ("draft", "good", "best")] == ["rules", "nmt", "giant"]


def test_an_explicit_quality_never_falls_silently_to_a_lower_one() -> None:
    with pytest.raises(EngineMissingError) as caught:
        picked([candidate("rules"), candidate("nmt", "good", missing="its weights are not here")], quality="good")
    assert caught.value.advice == "install nmt"


def test_best_is_the_best_that_any_known_engine_offers() -> None:
    name, reason = picked([candidate("rules")], quality="best")
    assert name == "rules"
    assert "best quality was asked for, and draft is the nearest" in reason


def test_a_quality_below_every_engine_takes_the_lowest_there_is() -> None:
    assert picked([candidate("giant", "best"), candidate("nmt", "good")], quality="draft")[0] == "nmt"


def test_a_language_nobody_can_do_names_what_can_be_done() -> None:
    with pytest.raises(LanguageError, match=r"No engine here translates en to de \(from en there is: es\)"):
        picked([candidate("rules")], target="de")


def test_a_language_that_a_missing_engine_might_do_names_that_engine() -> None:
    with pytest.raises(LanguageError, match=r"nmt might, but it is not installed \(install nmt\)"):
        picked([candidate("rules"), candidate("nmt", "good", missing="it is not installed")], target="de")


def test_no_installed_engine_at_all_says_how_to_get_the_easiest() -> None:
    engines = [candidate("rules", missing="it is gone"), candidate("nmt", "good", missing="no weights")]
    with pytest.raises(EngineMissingError, match="translate engine rules cannot be used here: it is gone"):
        picked(engines)


def test_no_registered_engine_of_the_kind_is_an_error_of_its_own() -> None:
    with pytest.raises(EngineMissingError, match="none is registered"):
        picked([candidate("rules")], kind="speak")


def test_commercial_safety_passes_over_engines_that_forbid_it_and_says_why() -> None:
    engines = [candidate("rules"), candidate("nllb", "good", commercial=False)]
    name, reason = picked(engines, commercial_safe=True)
    assert name == "rules"
    assert "nllb would be better, but its licence (CC-BY-NC-4.0) forbids commercial use" in reason


@pytest.mark.parametrize("wish", [{"name": "nllb"}, {"quality": "good"}, {}])
def test_commercial_safety_refuses_when_only_forbidden_engines_are_left(wish: dict[str, Any]) -> None:
    with pytest.raises(LicenceError, match="CC-BY-NC"):
        picked([candidate("nllb", "good", commercial=False)], commercial_safe=True, **wish)


def test_a_double_is_never_chosen_by_itself_but_by_name() -> None:
    engines = [candidate("rules"), candidate("fake", "best", hidden=True)]
    assert picked(engines)[0] == "rules"
    assert picked(engines, quality="best")[0] == "rules"
    name, reason = picked(engines, name="fake")
    assert name == "fake"
    assert "asked for by name" in reason


def test_a_name_that_does_not_exist_names_those_that_do() -> None:
    with pytest.raises(UsageError, match="There is no translate engine named rulez; there are: rules"):
        picked([candidate("rules"), candidate("fake", hidden=True)], name="rulez")


def test_an_engine_of_another_kind_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="rules is a translate engine, not a speak engine"):
        picked([candidate("rules")], kind="speak", name="rules")


def test_a_named_engine_that_is_missing_or_cannot_do_the_language_is_an_error() -> None:
    with pytest.raises(EngineMissingError):
        picked([candidate("rules", missing="it is gone")], name="rules")
    with pytest.raises(LanguageError, match="rules"):
        picked([candidate("rules")], name="rules", target="fr")


def test_kinds_with_one_language_look_at_their_own() -> None:
    voice = candidate("voice", kind="speak", pairs="es>es")
    ears = candidate("ears", kind="transcribe", pairs="en>en")
    assert picked([voice], kind="speak") == (
        "voice",
        "voice speaks es: the best that is installed here (draft quality).",
    )
    assert picked([ears], kind="transcribe")[0] == "ears"
    with pytest.raises(LanguageError, match=r"recognises fr \(there is: en\)"):
        picked([ears], kind="transcribe", source="fr")
