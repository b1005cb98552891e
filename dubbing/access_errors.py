"""What a visitor of the web server may be told at the door; see errors.py for the tree they belong to."""

from __future__ import annotations

from dubbing.errors import DubbingError


class NotLoggedInError(DubbingError):
    """This needs a login."""

    code, hint, exit_code, http_status = "login_required", "Log in, or send an API key.", 2, 401


class KeyScopeError(DubbingError):
    """The API key may only look, not change anything."""

    code, exit_code, http_status = "key_scope", 2, 403
    hint = "Make a key that may also change things: settings of dubbing-web, API keys."


class BadLoginError(DubbingError):
    """The user name or the password is wrong."""

    code, hint, exit_code, http_status = "bad_login", "Check both; an administrator can make a new invitation.", 2, 401


class ThrottledError(DubbingError):
    """There were too many attempts; the next is possible in {wait_s} s."""

    code, hint, retryable, exit_code, http_status = "throttled", "Wait, then try again.", True, 75, 429


class WeakPasswordError(DubbingError):
    """The password has {length} characters, and at least {least} are needed."""

    code, hint, exit_code, http_status = "weak_password", "A sentence is easy to remember and long enough.", 2, 422


class WrongPasswordError(DubbingError):
    """The present password is another one."""

    code, hint, exit_code, http_status = "wrong_password", "Type the one you log in with now.", 2, 403


class LastAdminError(DubbingError):
    """{name} is the last administrator who can log in."""

    code, hint, exit_code, http_status = "last_admin", "Make another user an administrator first.", 2, 409


class CrossSiteError(DubbingError):
    """The request came from another site ({origin})."""

    code, hint, exit_code, http_status = "cross_site", "Open the page of this server itself and try there.", 2, 403


class AddressError(DubbingError):
    """The address {address} may not use this server."""

    code, hint, exit_code, http_status = (
        "address",
        "REMOTE_ACCESS_MODE decides who may; docs/remote_access.md explains.",
        2,
        403,
    )
