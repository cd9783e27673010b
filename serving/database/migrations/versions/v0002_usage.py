"""Usage by key and day."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "usage_by_day",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("writer", sa.Text, primary_key=True),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("received_bytes", sa.BigInteger, nullable=False),
        sa.Column("frames_decoded", sa.BigInteger, nullable=False),
        sa.Column("frames_labelled", sa.BigInteger, nullable=False),
        sa.Column("compute_seconds", sa.Double, nullable=False),
    )
    op.create_index("usage_by_day_by_day", "usage_by_day", ["day"])
