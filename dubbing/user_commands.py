"""`dub user`: the users of this server, for whoever can write its database. Passwords are asked for, never arguments."""

from __future__ import annotations

import argparse
import getpass
import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dubbing.config import Settings
from dubbing.errors import UsageError
from dubbing.jobs import Actor
from dubbing.passwords import hash_password
from dubbing.store import Store, User, open_store

ACTOR = Actor("command-line", "admin")
"""Whoever can write the database may do everything with it."""


@contextmanager
def _open(settings: Settings) -> Iterator[Store]:
    store = open_store(settings)
    try:
        yield store
    finally:
        store.close()


def add(arguments: argparse.Namespace, settings: Settings) -> int:
    """Make a user who can log in."""
    hashed = hash_password(ask_password())
    with _open(settings) as store:
        user = store.add_user(arguments.name, arguments.role, hashed)
        store.audit(ACTOR.user_id, "user_added", f"{user.name} ({user.role})")
    return _say(arguments, _facts(user), f"{user.name} can log in now ({user.role})")


def list_users(arguments: argparse.Namespace, settings: Settings) -> int:
    """Everybody, with role and state."""
    with _open(settings) as store:
        users = store.users(ACTOR)
    if arguments.json:
        sys.stdout.write(json.dumps([_facts(user) for user in users], ensure_ascii=False) + "\n")
        return 0
    for user in users:
        quota = f"{user.quota_mb} MB" if user.quota_mb else "no quota"
        sys.stdout.write(f"{user.name:<24} {user.role:<8} {_facts(user)['state']:<14} {quota}\n")
    return 0


def disable(arguments: argparse.Namespace, settings: Settings) -> int:
    """Lock a user out, at once; his jobs stay."""
    return _switch(arguments, settings, disabled=True)


def enable(arguments: argparse.Namespace, settings: Settings) -> int:
    """Let a disabled user in again."""
    return _switch(arguments, settings, disabled=False)


def password(arguments: argparse.Namespace, settings: Settings) -> int:
    """Give a user another password and end his sessions."""
    with _open(settings) as store:
        user = store.user_by_name(arguments.name)
        store.set_password(user.id, hash_password(ask_password()))
        store.audit(ACTOR.user_id, "password_set", user.name)
    return _say(arguments, {"name": user.name}, f"{user.name} has another password; all sessions have ended")


def tailscale(arguments: argparse.Namespace, settings: Settings) -> int:
    """Say by what login of the tailnet a user comes in without a password; without one, by none."""
    with _open(settings) as store:
        user = store.set_tailscale_login(ACTOR, store.user_by_name(arguments.name).id, arguments.login)
        store.audit(ACTOR.user_id, "tailscale_login", f"{user.name}: {user.tailscale_login or 'none'}")
    text = f"comes in as {user.tailscale_login}" if user.tailscale_login else "comes in with a password alone"
    return _say(arguments, _facts(user), f"{user.name} {text}")


def invite(arguments: argparse.Namespace, settings: Settings) -> int:
    """Make a link with which one person becomes a user."""
    with _open(settings) as store:
        secret = secrets.token_urlsafe(24)
        made = store.add_invite(secret, arguments.role, by=ACTOR)
        store.audit(ACTOR.user_id, "invited", f"{made.id} ({made.role})")
    path = f"/ui/invite/{secret}"
    text = f"{path}\nPut it behind the address of your server; it makes one {made.role}, once, within a week."
    return _say(arguments, {"path": path, "role": made.role, "expires_ms": made.expires_ms}, text)


def ask_password() -> str:
    """A password, typed twice at a terminal, else the first line of what is piped in. Raises UsageError."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != first:
        raise UsageError(detail="The two passwords differ")
    return first


def _switch(arguments: argparse.Namespace, settings: Settings, *, disabled: bool) -> int:
    with _open(settings) as store:
        user = store.change_account(ACTOR, store.user_by_name(arguments.name).id, disabled=disabled)
        store.audit(ACTOR.user_id, "user_disabled" if disabled else "user_enabled", user.name)
    text = "is locked out; the sessions have ended" if disabled else "can log in again"
    return _say(arguments, _facts(user), f"{user.name} {text}")


def _facts(user: User) -> dict[str, Any]:
    state = "disabled" if user.disabled else "can log in" if user.password_hash else "no password"
    return {
        "name": user.name,
        "role": user.role,
        "state": state,
        "quota_mb": user.quota_mb,
        "tailscale_login": user.tailscale_login,
    }


def _say(arguments: argparse.Namespace, facts: dict[str, Any], text: str) -> int:
    sys.stdout.write((json.dumps(facts, ensure_ascii=False) if arguments.json else text) + "\n")
    return 0
