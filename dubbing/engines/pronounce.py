"""English words as they are said: numbers in words, and a guess at the sounds of words no dictionary has."""

from __future__ import annotations

import re
import unicodedata

_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
         "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]  # fmt: skip
_TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES = [(10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred")]
_SYMBOLS = {
    "%": "percent",
    "&": "and",
    "$": "dollars",
    "€": "euros",
    "£": "pounds",
    "@": "at",
    "+": "plus",
    "=": "equals",
}
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[a-z]+(?:'[a-z]+)*'?|[%&$€£@+]")

_SOUNDS = {
    "augh": "AO F", "eigh": "EY", "ough": "AO", "tion": "SH AH N", "sion": "ZH AH N", "cial": "SH AH L",
    "tial": "SH AH L", "cious": "SH AH S", "tious": "SH AH S", "ture": "CH ER", "igh": "AY", "tch": "CH", "dge": "JH",
    "sch": "SH", "ai": "EY", "ay": "EY", "au": "AO", "aw": "AO", "ea": "IY", "ee": "IY", "ei": "IY", "ey": "IY",
    "eu": "UW", "ew": "UW", "ie": "IY", "oa": "OW", "oe": "OW", "oi": "OY", "oo": "UW", "ou": "AW", "ow": "OW",
    "oy": "OY", "ue": "UW", "ui": "UW", "ar": "AA R", "er": "ER", "ir": "ER", "or": "AO R", "ur": "ER", "ch": "CH",
    "ck": "K", "gh": "G", "gn": "N", "kn": "N", "ng": "NG", "ph": "F", "qu": "K W", "sh": "SH", "th": "TH", "wh": "W",
    "wr": "R", "ce": "S", "ci": "S IH", "cy": "S IY", "a": "AE", "b": "B", "c": "K", "d": "D", "e": "EH", "f": "F",
    "g": "G", "h": "HH", "i": "IH", "j": "JH", "k": "K", "l": "L", "m": "M", "n": "N", "o": "AA", "p": "P", "q": "K",
    "r": "R", "s": "S", "t": "T", "u": "AH", "v": "V", "w": "W", "x": "K S", "y": "IY", "z": "Z",
}  # fmt: skip
"""Spelling -> ARPABET, the longest spelling first."""
_LONGEST = max(map(len, _SOUNDS))


def spoken_words(token: str) -> list[str]:
    """Words said for a written token: `Well-known` -> well known, `3.5` -> three point five, `—` -> none."""
    plain = unicodedata.normalize("NFKD", token.replace("\u2019", "'")).lower()
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    words: list[str] = []
    for found in _TOKEN.findall(plain):
        if found[0].isdigit():
            words += _number(found)
        elif found in _SYMBOLS:
            words.append(_SYMBOLS[found])
        else:
            words.append(found.rstrip("'"))
    return words


def letter_to_sound(word: str) -> list[str]:
    """ARPABET phones guessed from the spelling, good enough to find a word in time: churl -> CH ER L."""
    word = word.lower().replace("'", "")
    if len(word) > 3 and word.endswith("e") and word[-2] not in "aeiou":
        word = word[:-1]
    phones: list[str] = []
    at = 0
    while at < len(word):
        for size in range(min(_LONGEST, len(word) - at), 0, -1):
            sounds = _SOUNDS.get(word[at : at + size])
            if sounds:
                if not (size == 1 and at and word[at] == word[at - 1]):
                    phones += sounds.split()
                at += size
                break
        else:
            at += 1
    return phones


def _number(digits: str) -> list[str]:
    whole, _, fraction = digits.replace(",", "").partition(".")
    words = (_year(whole) if whole == digits else []) or (
        _integer(int(whole)) if len(whole) <= 12 else [_ONES[int(d)] for d in whole]
    )
    if fraction:
        words = [*words, "point", *(_ONES[int(digit)] for digit in fraction if digit.isdigit())]
    return words


def _year(whole: str) -> list[str]:
    """1984 is said nineteen eighty four; 2000 to 2009 are ordinary numbers."""
    if len(whole) != 4 or whole.startswith("200") or not ("11" <= whole[:2] <= "20"):
        return []
    rest = int(whole[2:])
    tail = ["hundred"] if rest == 0 else ["oh", _ONES[rest]] if rest < 10 else _integer(rest)
    return [*_integer(int(whole[:2])), *tail]


def _integer(number: int) -> list[str]:
    if number < 20:
        return [_ONES[number]]
    if number < 100:
        return [_TENS[number // 10], *([_ONES[number % 10]] if number % 10 else [])]
    for scale, name in _SCALES:
        if number >= scale:
            rest = number % scale
            return [*_integer(number // scale), name, *(_integer(rest) if rest else [])]
    return []
