"""Who asks: passwords (argon2id), sessions in a cookie, API keys in a header, and the throttle on guessing."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import Response

from dubbing import passwords
from dubbing.access_errors import (
    BadLoginError,
    CrossSiteError,
    KeyScopeError,
    NotLoggedInError,
    ThrottledError,
    WrongPasswordError,
)
from dubbing.errors import ForbiddenError, NotFoundError
from dubbing.jobs import Actor
from dubbing.store import Store, User
from dubbing.store.access import SESSION_MS, Scope

COOKIE = "dub_session"
SAFE = ("GET", "HEAD", "OPTIONS")
AT_ONCE = 2
"""Passwords checked at the same time: each takes 64 MB and most of a core for a moment."""
FREE_TRIES = 3
LONGEST_WAIT_S = 300
FORGET_S = 3600


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who was let in."""

    user: User
    scope: Scope = "write"
    """`read` for API keys that may only look."""
    session: str = ""
    """Secret of the session; empty for API keys."""

    @property
    def actor(self) -> Actor:
        """As the store wants to know him; a key that may only look acts as a viewer would."""
        if self.scope == "read" and self.user.role == "user":
            return Actor(self.user.id, "viewer")
        return self.user.actor


class Passwords:
    """Hashes and checks passwords in threads, a few at a time."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def hash(self, password: str) -> str:
        """See `passwords.hash_password`."""
        async with self._turns:
            return await asyncio.to_thread(passwords.hash_password, password)

    async def right(self, password: str, hashed: str | None) -> bool:
        """See `passwords.is_right`."""
        async with self._turns:
            return await asyncio.to_thread(passwords.is_right, password, hashed)


@dataclass
class Throttle:
    """Makes guesses wait ever longer, by account and address; nobody is locked out for good."""

    clock: Callable[[], float] = time.monotonic
    _failures: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)

    def check(self, account: str, address: str) -> None:
        """Raises ThrottledError while it is too soon."""
        wait = max(self._wait((account, address)), self._wait(("", address)))
        if wait > 0:
            raise ThrottledError(wait_s=round(wait) + 1)

    def failed(self, account: str, address: str) -> None:
        """Count a wrong guess; one address that tries many accounts waits too."""
        now = self.clock()
        if len(self._failures) > 10_000:
            self._failures = {key: kept for key, kept in self._failures.items() if now - kept[1] < FORGET_S}
        for key, free in (((account, address), 0), (("", address), 10)):
            count, at = self._failures.get(key, (-free, now))
            self._failures[key] = ((count if now - at < FORGET_S else -free) + 1, now)

    def succeeded(self, account: str, address: str) -> None:
        """Forget the wrong guesses of somebody who then knew."""
        self._failures.pop((account, address), None)

    def _wait(self, key: tuple[str, str]) -> float:
        count, at = self._failures.get(key, (0, 0.0))
        over = count - FREE_TRIES
        return at + min(LONGEST_WAIT_S, 2.0 ** min(over, 20)) - self.clock() if over >= 0 else 0.0


class Identity:
    """Lets people in and finds out who asks."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.passwords = Passwords()
        self.throttle = Throttle()

    async def log_in(self, name: str, password: str, request: Request) -> tuple[User, str]:
        """Check a password and open a session; its secret. Raises BadLoginError, ThrottledError."""
        address = address_of(request)
        self.throttle.check(name, address)
        try:
            user: User | None = self._store.user_by_name(name)
        except NotFoundError:
            user = None
        right = await self.passwords.right(password, user.password_hash if user else None)
        if user is None or not right or user.disabled:
            self.throttle.failed(name, address)
            self._store.audit("", "login_failed", name, address)
            raise BadLoginError
        self.throttle.succeeded(name, address)
        self._store.audit(user.id, "login", "", address)
        return user, self.open_session(user, request)

    def let_in(self, login: str, request: Request) -> str | None:
        """Open a session for the user whom a tailnet knows by this login; its secret, None when there is no such user."""
        user = self.known(login)
        if user is None:
            return None
        self._store.audit(user.id, "login", f"Tailscale: {login}", address_of(request))
        return self.open_session(user, request)

    def known(self, login: str) -> User | None:
        """The user whom a tailnet knows by this login, unless he is locked out."""
        try:
            user = self._store.user_by_tailscale_login(login) if login else None
        except NotFoundError:
            return None
        return None if user is None or user.disabled else user

    async def change_password(self, visitor: Visitor, old: str, new: str, request: Request) -> None:
        """Give a user another password and end his other sessions.

        Raises WrongPasswordError (of the old one), ThrottledError, WeakPasswordError.
        """
        user, address = visitor.user, address_of(request)
        self.throttle.check(user.name, address)
        if not await self.passwords.right(old, user.password_hash):
            self.throttle.failed(user.name, address)
            self._store.audit(user.id, "password_failed", "", address)
            raise WrongPasswordError
        self.throttle.succeeded(user.name, address)
        self._store.set_password(user.id, await self.passwords.hash(new), keep=visitor.session)
        self._store.audit(user.id, "password_changed", "", address)

    def open_session(self, user: User, request: Request) -> str:
        """Open a session and end the one the browser had; the new secret."""
        if old := request.cookies.get(cookie_name(request)):
            self._store.close_session(old)
        secret = secrets.token_urlsafe(32)
        agent = request.headers.get("user-agent", "")
        self._store.open_session(user.id, secret, agent=agent, address=address_of(request))
        return secret

    def visitor(self, request: Request) -> Visitor | None:
        """Who asks; None for nobody we know. A session counts only for requests of our own pages."""
        if key := key_of(request):
            found = self._store.key_user(key)
            return Visitor(found[0], found[1]) if found else None
        secret = request.cookies.get(cookie_name(request))
        user = self._store.session_user(secret) if secret else None
        if user is None or secret is None:
            return None
        check_origin(request)
        return Visitor(user, "write", secret)


def key_of(request: Request) -> str:
    """The API key a request came with; empty when it has none."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else request.headers.get("xi-api-key", "")


def check_origin(request: Request) -> None:
    """A request that changes something must come from a page of ours. Raises CrossSiteError.

    Browsers say so by Sec-Fetch-Site; over plain http to another machine they send Origin alone.
    """
    if request.method in SAFE:
        return
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin", "")
    if site is not None:
        if site not in ("same-origin", "none"):
            raise CrossSiteError(origin=origin or site)
        return
    if origin.partition("://")[2] != request.headers.get("host", ""):
        raise CrossSiteError(origin=origin or "unknown")


def address_of(request: Request) -> str:
    """The client's address, as Admission settled it."""
    return request.client.host if request.client else ""


def cookie_name(request: Request) -> str:
    """`__Host-` binds the cookie to this very host, which browsers allow over https only."""
    return f"__Host-{COOKIE}" if request.url.scheme == "https" else COOKIE


def set_session(request: Request, response: Response, secret: str) -> None:
    """Give the browser its session."""
    response.set_cookie(
        cookie_name(request),
        secret,
        max_age=SESSION_MS // 1000,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )


def drop_session(request: Request, response: Response) -> None:
    """Take the session from the browser."""
    response.delete_cookie(cookie_name(request), path="/", secure=request.url.scheme == "https", httponly=True)


# What asks no database is `async`: a plain function would cost each request a hop to a thread.


def _visitor(request: Request) -> Visitor:
    found: Visitor | None = request.app.state.office.identity.visitor(request)
    if found is None:
        raise NotLoggedInError
    return found


async def _person(visitor: Annotated[Visitor, Depends(_visitor)]) -> Visitor:
    if not visitor.session:
        raise ForbiddenError(role="API key", action="see or change how its user gets in")
    return visitor


async def _writer(request: Request, visitor: Annotated[Visitor, Depends(_visitor)]) -> Visitor:
    if visitor.user.role == "viewer":
        raise ForbiddenError(role="viewer", action="change anything")
    if visitor.scope == "read":
        raise KeyScopeError
    return visitor


async def _admin(request: Request, visitor: Annotated[Visitor, Depends(_visitor)]) -> Visitor:
    if visitor.user.role != "admin":
        raise ForbiddenError(role=visitor.user.role, action="administer this server")
    if visitor.scope == "read" and request.method not in SAFE:
        raise KeyScopeError
    return visitor


Anyone = Annotated[Visitor, Depends(_visitor)]
"""A route's parameter of this type lets in whoever is logged in or has a key."""
Person = Annotated[Visitor, Depends(_person)]
"""Whoever logged in with a browser: an API key neither sees nor changes how its user gets in."""
Writer = Annotated[Visitor, Depends(_writer)]
"""Whoever may change his own things: not viewers, not keys that only look."""
Admin = Annotated[Visitor, Depends(_admin)]
"""Administrators."""


_ASKED = {_admin: "admin", _writer: "writer", _person: "person", _visitor: "anyone"}


def asked_of(dependant: Any) -> str:
    """What a route asks of its visitor: `open`, `anyone`, `person`, `writer` or `admin`."""
    calls = {dependency.call for dependency in dependant.dependencies}
    return next((word for call, word in _ASKED.items() if call in calls), "open")
