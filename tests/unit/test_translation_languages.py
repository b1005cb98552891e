"""Which code of a translation model a BCP-47 tag means."""

from __future__ import annotations

import pytest

from dubbing.engines import translation_languages as languages
from dubbing.engines.ctranslate2_translate import MADLAD400_3B, NLLB_600M


@pytest.mark.parametrize(
    ("tag", "nllb", "m2m100", "madlad400"),
    [
        ("en", "eng_Latn", "en", "en"),
        ("EN-us", "eng_Latn", "en", "en"),
        ("pt-BR", "por_Latn", "pt", "pt"),
        ("zh", "zho_Hans", "zh", "zh"),
        ("zh-Hans", "zho_Hans", "zh", "zh"),
        ("zh_CN", "zho_Hans", "zh", "zh"),
        ("zh-Hant", "zho_Hant", None, "zh_Hant"),
        ("zh-TW", "zho_Hant", None, "zh_Hant"),
        ("zh-HK", "zho_Hant", None, "zh_Hant"),
        ("yue", "yue_Hant", None, "yue"),
        ("no", "nob_Latn", "no", "no"),
        ("nn", "nno_Latn", "no", "no"),
        ("ar", "arb_Arab", "ar", "ar"),
        ("fa-IR", "pes_Arab", "fa", "fa"),
        ("sr", "srp_Cyrl", "sr", "sr"),
        ("sr-Latn", None, None, None),
        ("az", "azj_Latn", "az", "az"),
        ("tl", "tgl_Latn", "tl", "fil"),
        ("iw", "heb_Hebr", "he", "he"),
        ("ace", "ace_Latn", None, "ace"),
        ("ace-Arab", "ace_Arab", None, "ace"),
        ("tlh", None, None, "tlh"),
        ("xx", None, None, None),
    ],
)
def test_tags(tag: str, nllb: str | None, m2m100: str | None, madlad400: str | None) -> None:
    assert (languages.nllb(tag), languages.m2m100(tag), languages.madlad400(tag)) == (nllb, m2m100, madlad400)


def test_every_language_that_is_offered_has_a_code() -> None:
    for offered, code in (
        (languages.nllb_languages(), languages.nllb),
        (languages.m2m100_languages(), languages.m2m100),
        (languages.madlad400_languages(), languages.madlad400),
    ):
        assert not [tag for tag in offered if code(tag) is None]
    assert [len(f()) > n for f, n in ((languages.nllb_languages, 190), (languages.m2m100_languages, 99))] == [True] * 2


def test_a_multilingual_engine_offers_every_pair_but_a_language_with_itself() -> None:
    offered = NLLB_600M.languages()
    assert offered.can("en-GB", "sw") and offered.can("sw", "ckb")
    assert not offered.can("en", "en-US") and not offered.can("en", "xx")
    assert "es" in offered.targets("en") and "en" not in offered.targets("en")
    assert not offered.targets("xx")
    assert "en" in MADLAD400_3B.languages().sources
