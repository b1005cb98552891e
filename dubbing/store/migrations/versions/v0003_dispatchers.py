"""The dispatchers that are alive, so that `dub run` finds a running server."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the table of dispatchers."""
    op.create_table(
        "dispatcher",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("serves", sa.Integer(), server_default="0", nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("beat_ms", BIG, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_dispatcher"),
    )
