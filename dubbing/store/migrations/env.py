"""Alembic's entry: runs the steps on the connection that `database.upgrade` hands over, in its transaction."""

from alembic import context
from sqlmodel import SQLModel

import dubbing.store.tables
import dubbing.store.web_tables  # noqa: F401 - both fill the metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    render_as_batch=True,  # SQLite cannot alter most things in place
)
context.run_migrations()
