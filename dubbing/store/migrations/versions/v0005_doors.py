"""By what name a tailnet knows a user, and what a user chose once for all his dubs."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column, and create the table."""
    op.add_column("app_user", sa.Column("tailscale_login", sa.Text(), nullable=True))
    op.create_index("uq_app_user_tailscale_login", "app_user", ["tailscale_login"], unique=True)
    op.create_table(
        "preference",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["app_user.id"], name="fk_preference_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "name", name="pk_preference"),
    )
