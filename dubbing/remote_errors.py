"""What `dub` may meet on its way to the server of DUBBING_URL; see errors.py for the tree they belong to."""

from __future__ import annotations

from dubbing.errors import DubbingError, UsageError


class NotRemoteError(UsageError):
    """`{command}` works on this machine alone, and DUBBING_URL names a server."""

    code, hint = "not_remote", "Unset DUBBING_URL for this command, or give the command on the server itself."


class ServerUnreachableError(DubbingError):
    """The server {url} cannot be reached: {detail}."""

    code, retryable, exit_code, http_status = "server_unreachable", True, 5, 503
    hint = "Check DUBBING_URL, the network, and that dubbing-web runs there; the same command goes on where it stopped."


class ServerUntrustedError(DubbingError):
    """The server {url} does not prove that it is the one it says: {detail}."""

    code, exit_code, http_status = "server_untrusted", 5, 502
    hint = "Nothing was sent. Check DUBBING_URL; for a certificate authority of your own set SSL_CERT_FILE."


class ServerForeignError(DubbingError):
    """What answers at {url} is not the dubbing-web that this dub knows: {detail}."""

    code, exit_code, http_status = "server_foreign", 5, 502
    hint = "DUBBING_URL is the address that a browser opens, without /ui; the server must not be older than dub."


class ServerMovedError(DubbingError):
    """The server {url} sends elsewhere, to {place}."""

    code, exit_code, http_status = "server_moved", 5, 502
    hint = "If that is right, make it DUBBING_URL; the API key was not sent there."


class ApiKeyError(DubbingError):
    """The server {url} does not know the API key."""

    code, exit_code, http_status = "api_key", 2, 401
    hint = "Check DUBBING_API_KEY; keys are made on the settings page of dubbing-web, and may end or be revoked."
