"""What alembic runs: the steps, on the connection and in the transaction of serving.database.schema."""

from alembic import context

from serving.database.schema import VERSION_TABLE
from serving.database.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
)
context.run_migrations()
