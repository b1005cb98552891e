"""What the web needs: sessions, API keys, invitations, uploads, an audit log, webhooks; shared jobs and quotas."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables, and add the columns."""
    op.add_column("job", sa.Column("shared", sa.Integer(), server_default="0", nullable=False))
    op.add_column("app_user", sa.Column("quota_mb", sa.Integer(), server_default="0", nullable=False))
    _create_access()
    _create_uploads()
    _create_webhooks()


def _create_access() -> None:
    """Who is let in, by what, and what they did."""
    op.create_table(
        "session",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("created_ms", BIG, server_default="0", nullable=False),
        sa.Column("used_ms", BIG, server_default="0", nullable=False),
        sa.Column("expires_ms", BIG, server_default="0", nullable=False),
        sa.Column("agent", sa.Text(), server_default="", nullable=False),
        sa.Column("address", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["app_user.id"], name="fk_session_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("hash", name="pk_session"),
    )
    op.create_index("ix_session_user_id", "session", ["user_id"], unique=False)
    op.create_table(
        "api_key",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("created_ms", BIG, server_default="0", nullable=False),
        sa.Column("used_ms", BIG, server_default="0", nullable=False),
        sa.Column("expires_ms", BIG, server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["app_user.id"], name="fk_api_key_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_api_key"),
        sa.UniqueConstraint("hash", name="uq_api_key_hash"),
    )
    op.create_table(
        "invite",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), server_default="", nullable=False),
        sa.Column("created_ms", BIG, server_default="0", nullable=False),
        sa.Column("expires_ms", BIG, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("hash", name="pk_invite"),
        sa.UniqueConstraint("id", name="uq_invite_id"),
    )
    op.create_table(
        "audit",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("at_ms", BIG, server_default="0", nullable=False),
        sa.Column("user_id", sa.Text(), server_default="", nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), server_default="", nullable=False),
        sa.Column("address", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
        sqlite_autoincrement=True,
    )


def _create_uploads() -> None:
    """Files on their way in, and those that arrived."""
    op.create_table(
        "upload",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("size", BIG, server_default="0", nullable=False),
        sa.Column("received", BIG, server_default="0", nullable=False),
        sa.Column("created_ms", BIG, server_default="0", nullable=False),
        sa.Column("used_ms", BIG, server_default="0", nullable=False),
        sa.Column("expires_ms", BIG, server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["app_user.id"], name="fk_upload_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_upload"),
    )
    op.create_index("ix_upload_user_id", "upload", ["user_id"], unique=False)


def _create_webhooks() -> None:
    """Addresses that are told how jobs end, and what they were told."""
    op.create_table(
        "webhook",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("created_ms", BIG, server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["app_user.id"], name="fk_webhook_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_webhook"),
    )
    op.create_table(
        "delivery",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("webhook_id", sa.Text(), nullable=False),
        sa.Column("event_id", BIG, server_default="0", nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_ms", BIG, server_default="0", nullable=False),
        sa.Column("status", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["webhook_id"], ["webhook.id"], name="fk_delivery_webhook_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_delivery"),
        sa.UniqueConstraint("webhook_id", "event_id", name="uq_delivery_webhook_id"),
    )
    op.create_index("ix_delivery_due_ms", "delivery", ["due_ms"], unique=False)
