"""Errors of the API alone, in the one tree of errors.py."""

from __future__ import annotations

from dubbing.errors import DubbingError


class NotReadyError(DubbingError):
    """The dub of {name} is not finished yet."""

    code, hint, retryable, exit_code, http_status = "not_ready", "Ask again when the job is done.", True, 75, 425


class WebhookAddressError(DubbingError):
    """The webhook address {url} cannot be used: {detail}."""

    code, hint, exit_code, http_status = "webhook_address", "Name an http or https address of the internet.", 2, 422
