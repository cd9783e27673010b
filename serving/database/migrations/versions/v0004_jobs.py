"""Jobs, their items, and what is sent to webhooks."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    _add_jobs()
    _add_items()
    _add_deliveries()


def _add_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("key_sha256", sa.LargeBinary),
        sa.Column("asked_sha256", sa.LargeBinary, nullable=False),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("num_items", sa.Integer, nullable=False),
        sa.Column("num_succeeded", sa.Integer, nullable=False),
        sa.Column("num_failed", sa.Integer, nullable=False),
        sa.Column("num_cancelled", sa.Integer, nullable=False),
        sa.Column("end_state", sa.Text),
        sa.Column("webhook_url", sa.Text),
        sa.Column("webhook_secret", sa.LargeBinary),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("finished_at", sa.Double),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.UniqueConstraint("owner", "key_sha256", name="jobs_by_key"),
    )
    op.create_index("jobs_by_owner", "jobs", ["owner", "created_at", "id"])
    op.create_index("jobs_by_expiry", "jobs", ["expires_at"])


def _add_items() -> None:
    op.create_table(
        "job_items",
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("custom_id", sa.Text),
        sa.Column("upload_id", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("claim", sa.LargeBinary),
        sa.Column("due_at", sa.Double),
        sa.Column("end_state", sa.Text),
        sa.Column("answer", sa.LargeBinary),
    )
    not_ended = sa.text("due_at IS NOT NULL")
    op.create_index(
        "job_items_due", "job_items", ["position", "due_at"], sqlite_where=not_ended, postgresql_where=not_ended
    )
    op.create_index("job_items_by_upload", "job_items", ["upload_id"])


def _add_deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("claim", sa.LargeBinary),
        sa.Column("due_at", sa.Double),
        sa.Column("status", sa.Integer),
        sa.Column("reason", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("delivered_at", sa.Double),
    )
    op.create_index("deliveries_by_job", "deliveries", ["job_id"])
    op.create_index("deliveries_due", "deliveries", ["due_at"])
