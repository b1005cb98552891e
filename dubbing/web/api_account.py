"""The API over what belongs to the one who asks: who he is, his API keys, his webhooks."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from dubbing.errors import ForbiddenError
from dubbing.store.webhooks import Sent, Webhook
from dubbing.web import outbound
from dubbing.web.api_models import (
    PLAIN,
    KeyFields,
    KeyList,
    KeyOut,
    Me,
    NewKey,
    NewWebhook,
    SentOut,
    WebhookFields,
    WebhookList,
    WebhookOut,
    me_out,
)
from dubbing.web.identity import Anyone, Writer, address_of
from dubbing.web.office import Desk

router = APIRouter(prefix="/api/v1", tags=["account"])
Id = Annotated[str, Path(max_length=64, pattern=PLAIN)]
DAY_MS = 86_400_000


@router.get("/me", summary="Who asks")
def me(visitor: Anyone) -> Me:
    """The user behind the session or the API key."""
    return me_out(visitor)


@router.get("/keys", summary="List API keys")
def keys(desk: Desk, visitor: Anyone) -> KeyList:
    """Your API keys, without their secrets."""
    return KeyList(keys=tuple(KeyOut(**asdict(key)) for key in desk.store.keys(visitor.user.id)))


@router.post("/keys", status_code=201, summary="Make an API key")
def add_key(request: Request, desk: Desk, visitor: Writer, fields: KeyFields) -> NewKey:
    """Make a key; its secret is in this answer and never again. Needs a login: keys cannot make keys."""
    if not visitor.session:
        raise ForbiddenError(role="API key", action="make API keys")
    secret = f"dub_{secrets.token_urlsafe(32)}"
    expires_ms = desk.store.clock_ms() + fields.expires_days * DAY_MS if fields.expires_days else 0
    key = desk.store.add_key(visitor.user.id, secret, name=fields.name, scope=fields.scope, expires_ms=expires_ms)
    desk.store.audit(visitor.user.id, "key_added", key.name, address_of(request))
    return NewKey(**asdict(key), secret=secret)


@router.delete("/keys/{key_id}", status_code=204, summary="Revoke an API key")
def end_key(request: Request, desk: Desk, visitor: Writer, key_id: Id) -> Response:
    """The key opens nothing from now on."""
    desk.store.end_key(visitor.user.id, key_id)
    desk.store.audit(visitor.user.id, "key_revoked", key_id, address_of(request))
    return Response(status_code=204)


@router.get("/webhooks", summary="List webhooks")
def webhooks(desk: Desk, visitor: Anyone) -> WebhookList:
    """Your webhooks, and how the latest messages to them went."""
    sent = desk.store.deliveries(visitor.user.id)
    return WebhookList(webhooks=tuple(_out(hook, sent) for hook in desk.store.webhooks(visitor.user.id)))


@router.post("/webhooks", status_code=201, summary="Add a webhook")
def add_webhook(request: Request, desk: Desk, visitor: Writer, fields: WebhookFields) -> NewWebhook:
    """Have an address told when your jobs end; the secret that signs the messages is in this answer and never again.

    Addresses of private networks are for administrators.
    """
    outbound.check_url(fields.url, private=visitor.actor.sees_all)
    secret = f"whsec_{secrets.token_urlsafe(32)}"
    hook = desk.store.add_webhook(visitor.user.id, fields.url, secret)
    desk.store.audit(visitor.user.id, "webhook_added", hook.url, address_of(request))
    return NewWebhook(id=hook.id, url=hook.url, created_ms=hook.created_ms, secret=secret)


@router.delete("/webhooks/{webhook_id}", status_code=204, summary="Delete a webhook")
def end_webhook(request: Request, desk: Desk, visitor: Writer, webhook_id: Id) -> Response:
    """The address hears nothing from now on."""
    desk.store.end_webhook(visitor.user.id, webhook_id)
    desk.store.audit(visitor.user.id, "webhook_deleted", webhook_id, address_of(request))
    return Response(status_code=204)


def _out(hook: Webhook, sent: Sequence[Sent]) -> WebhookOut:
    mine = (one for one in sent if one.webhook_id == hook.id)
    latest = (SentOut(event_id=s.event_id, attempt=s.attempt, due_ms=s.due_ms, status=s.status) for s in mine)
    return WebhookOut(id=hook.id, url=hook.url, created_ms=hook.created_ms, deliveries=tuple(latest))
