"""Deaths of dispatchers are counted apart from a job's own crashes."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the count; jobs that are there have none."""
    op.add_column("job", sa.Column("orphan_count", sa.Integer(), server_default="0", nullable=False))
