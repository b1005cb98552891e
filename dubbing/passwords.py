"""Passwords as argon2id hashes. One hash or check takes 64 MB and most of a core for a moment."""

from __future__ import annotations

import secrets
from functools import cache

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from dubbing.access_errors import WeakPasswordError

LEAST = 12
MOST = 1024
"""Characters; longer ones would only make guessing expensive for us."""
_HASHER = PasswordHash((Argon2Hasher(),))


def hash_password(password: str) -> str:
    """What is stored of a password. Raises WeakPasswordError."""
    if not LEAST <= len(password) <= MOST:
        raise WeakPasswordError(length=len(password), least=LEAST)
    return _HASHER.hash(password)


def is_right(password: str, hashed: str | None) -> bool:
    """Whether a password is the one; takes as long when there is none to compare with."""
    return _HASHER.verify(password[:MOST], hashed or _dummy()) and hashed is not None


@cache
def _dummy() -> str:
    return _HASHER.hash(secrets.token_urlsafe())
