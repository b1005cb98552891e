"""Names of languages, as their speakers write them."""

from __future__ import annotations

import re

_TAG = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_NATIVE = {
    "af": "Afrikaans", "an": "Aragonés", "ar": "العربية", "ast": "Asturianu", "bg": "Български", "bn": "বাংলা",
    "ca": "Català", "cs": "Čeština", "cy": "Cymraeg", "da": "Dansk", "de": "Deutsch", "el": "Ελληνικά",
    "en": "English", "eo": "Esperanto", "es": "Español", "et": "Eesti", "eu": "Euskara", "fa": "فارسی",
    "fi": "Suomi", "fr": "Français", "ga": "Gaeilge", "gl": "Galego", "gu": "ગુજરાતી", "he": "עברית",
    "hi": "हिन्दी", "hr": "Hrvatski", "hu": "Magyar", "hy": "Հայերեն", "id": "Indonesia", "is": "Íslenska",
    "it": "Italiano", "ja": "日本語", "ka": "ქართული", "kk": "Қазақша", "kn": "ಕನ್ನಡ", "ko": "한국어", "la": "Latina",
    "lt": "Lietuvių", "lv": "Latviešu", "mk": "Македонски", "ml": "മലയാളം", "mr": "मराठी", "ms": "Melayu",
    "nb": "Norsk bokmål", "ne": "नेपाली", "nl": "Nederlands", "no": "Norsk", "oc": "Occitan", "pa": "ਪੰਜਾਬੀ",
    "pl": "Polski", "pt": "Português", "ro": "Română", "ru": "Русский", "sc": "Sardu", "sk": "Slovenčina",
    "sl": "Slovenščina", "sq": "Shqip", "sr": "Српски", "sv": "Svenska", "sw": "Kiswahili", "ta": "தமிழ்",
    "te": "తెలుగు", "th": "ไทย", "tr": "Türkçe", "uk": "Українська", "ur": "اردو", "vi": "Tiếng Việt", "zh": "中文",
}  # fmt: skip

COMMON = (
    "en", "es", "pt-BR", "fr", "de", "it", "ca", "nl", "pl", "ru", "uk", "tr", "ar", "fa", "hi", "bn", "id", "vi", "th",
    "zh", "ja", "ko", "sv", "el", "he", "ro",
)  # fmt: skip
"""Languages that are offered first; any other can be named by its tag."""


def is_tag(text: str) -> bool:
    """Whether a text has the form of a language tag: `es`, `pt-BR`, `zh-Hant`."""
    return bool(_TAG.fullmatch(text))


def all_tags() -> list[str]:
    """Every language with a name here, by its tag, in the order of the names."""
    return sorted(_NATIVE, key=lambda tag: _NATIVE[tag].casefold())


def native_name(tag: str) -> str:
    """The language's own name for itself, with the region behind it; the tag where no name is known."""
    primary, _, rest = tag.partition("-")
    name = _NATIVE.get(primary.lower(), tag)
    return f"{name} ({rest})" if rest and primary.lower() in _NATIVE else name
