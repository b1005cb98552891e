"""The first schema: users, jobs, targets, lines, events, idempotency keys, the queue's state and settings."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create all tables, and the row that says which queue is in use."""
    _create_users_and_jobs()
    _create_parts_of_jobs()
    _create_queue()


def _create_users_and_jobs() -> None:
    """Who may ask, and what was asked."""
    op.create_table(
        "app_user",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("disabled", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_ms", BIG, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_app_user"),
        sa.UniqueConstraint("name", name="uq_app_user_name"),
    )
    op.create_table(
        "job",
        sa.Column("seq", BIG, autoincrement=True, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("cost", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("epoch", BIG, server_default="0", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("crash_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("run_at_ms", BIG, server_default="0", nullable=False),
        sa.Column("lease_until_ms", BIG, server_default="0", nullable=False),
        sa.Column("owner", sa.Text(), server_default="", nullable=False),
        sa.Column("asked", sa.Text(), nullable=True),
        sa.Column("indexed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("progress", sa.Text(), nullable=True),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_ms", BIG, server_default="0", nullable=False),
        sa.Column("started_ms", BIG, nullable=True),
        sa.Column("finished_ms", BIG, nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["app_user.id"], name="fk_job_user_id"),
        sa.PrimaryKeyConstraint("seq", name="pk_job"),
        sa.UniqueConstraint("id", name="uq_job_id"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_job_outbox",
        "job",
        ["seq"],
        unique=False,
        sqlite_where=sa.text("indexed = 0"),
        postgresql_where=sa.text("indexed = 0"),
    )
    op.create_index(
        "ix_job_running",
        "job",
        ["user_id"],
        unique=False,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index("ix_job_user_seq", "job", ["user_id", "seq"], unique=False)
    op.create_index(
        "ix_job_waiting",
        "job",
        ["seq"],
        unique=False,
        sqlite_where=sa.text("state IN ('pending', 'delayed')"),
        postgresql_where=sa.text("state IN ('pending', 'delayed')"),
    )


def _create_parts_of_jobs() -> None:
    """Languages, lines, events and keys that belong to a job."""
    op.create_table(
        "event",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("at_ms", BIG, server_default="0", nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_event_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_event"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_event_job_id_id", "event", ["job_id", "id"], unique=False)
    op.create_table(
        "idempotency_key",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("created_ms", BIG, server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_idempotency_key_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "key", name="pk_idempotency_key"),
    )
    op.create_table(
        "line",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("start_ms", BIG, server_default="0", nullable=False),
        sa.Column("end_ms", BIG, server_default="0", nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("speaker", sa.Text(), nullable=False),
        sa.Column("flag", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_line_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "language", "position", name="pk_line"),
    )
    op.create_table(
        "target",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("result", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_target_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "language", name="pk_target"),
    )


def _create_queue() -> None:
    """Which queue is in charge, and its settings."""
    op.create_table(
        "queue_setting",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_queue_setting"),
    )
    op.create_table(
        "queue_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("backend_epoch", BIG, server_default="0", nullable=False),
        sa.Column("holder", sa.Text(), server_default="", nullable=False),
        sa.Column("rebuild_holder", sa.Text(), server_default="", nullable=False),
        sa.Column("rebuild_until_ms", BIG, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_queue_state"),
    )
    op.execute("INSERT INTO queue_state (id, backend, backend_epoch) VALUES (1, 'redis', 0)")
