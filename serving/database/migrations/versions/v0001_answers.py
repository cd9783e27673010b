"""The first tables: answers by idempotency key."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "idempotent_answers",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("key_sha256", sa.LargeBinary, primary_key=True),
        sa.Column("asked_sha256", sa.LargeBinary, nullable=False),
        sa.Column("model_sha256", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("claim", sa.LargeBinary),
        sa.Column("lease_ends_at", sa.Double, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("answer", sa.LargeBinary),
        sa.Column("expires_at", sa.Double, nullable=False),
    )
    op.create_index("idempotent_answers_by_expiry", "idempotent_answers", ["expires_at"])
