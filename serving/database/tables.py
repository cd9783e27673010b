"""All tables of the database, as the newest migration leaves them. Knows no rows.

    idempotent_answers   a request that carried a key: who executes it, what was answered
    usage_by_day         what a process has counted for a key on a day: a bill is the sum over processes
    uploads              whose files there are beside the database, of which size they are to be, until when
    jobs, job_items      videos that were handed over; of each, whose turn it is to label it, and what came of it
    deliveries           messages to a job's webhook

A change here goes with a file in migrations/versions, which makes it; a test holds the two together. Times are Unix
times by the database's own clock (serving.database.core).
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()

idempotent_answers = Table(
    "idempotent_answers",
    metadata,
    Column("owner", Text, primary_key=True),  # the id of an API key; "" for nobody in particular
    Column("key_sha256", LargeBinary, primary_key=True),  # what a client calls its request may tell of somebody
    Column("asked_sha256", LargeBinary, nullable=False),  # of all that makes it this request and no other
    Column("model_sha256", Text, nullable=False),
    Column("attempts", Integer, nullable=False),  # how often it was begun
    Column("claim", LargeBinary),  # the fencing token of who executes it; NULL: nobody does
    Column("lease_ends_at", Double, nullable=False),
    Column("status", Integer),  # NULL: not answered yet
    Column("answer", LargeBinary),  # sealed
    Column("expires_at", Double, nullable=False),
    Index("idempotent_answers_by_expiry", "expires_at"),
)

usage_by_day = Table(
    "usage_by_day",
    metadata,
    Column("owner", Text, primary_key=True),  # the id of an API key; "" where a service asks for none
    Column("day", Text, primary_key=True),  # 2026-11-26, UTC, by the clock of who counted
    Column("writer", Text, primary_key=True),  # a process, by a random name
    Column("requests", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("received_bytes", BigInteger, nullable=False),
    Column("frames_decoded", BigInteger, nullable=False),
    Column("frames_labelled", BigInteger, nullable=False),
    Column("compute_seconds", Double, nullable=False),
    Index("usage_by_day_by_day", "day"),
)

uploads = Table(
    "uploads",
    metadata,
    Column("upload_id", Text, primary_key=True),  # random, and the name of the file
    Column("owner", Text, nullable=False),  # the id of an API key; "" for nobody in particular
    Column("num_bytes", BigInteger, nullable=False),  # declared: how many have come, the file itself says
    Column("sha256", LargeBinary),  # declared; of a complete one, found
    Column("complete", Boolean, nullable=False),
    Column("expires_at", Double, nullable=False),
    Index("uploads_by_owner", "owner"),
    Index("uploads_by_expiry", "expires_at"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("key_sha256", LargeBinary),  # of an Idempotency-Key; NULL: none came with it
    Column("asked_sha256", LargeBinary, nullable=False),  # of all that was asked with it
    Column("options", Text, nullable=False),  # JSON, the same for all items
    Column("num_items", Integer, nullable=False),
    Column("num_succeeded", Integer, nullable=False),
    Column("num_failed", Integer, nullable=False),
    Column("num_cancelled", Integer, nullable=False),
    Column("end_state", Text),  # succeeded, failed or cancelled; NULL: it goes on
    Column("webhook_url", Text),
    Column("webhook_secret", LargeBinary),  # sealed
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("expires_at", Double, nullable=False),
    UniqueConstraint("owner", "key_sha256", name="jobs_by_key"),
    Index("jobs_by_owner", "owner", "created_at", "id"),
    Index("jobs_by_expiry", "expires_at"),
)

job_items = Table(
    "job_items",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("custom_id", Text),
    Column("upload_id", Text, nullable=False),
    Column("attempts", Integer, nullable=False),  # how often it was begun
    Column("claim", LargeBinary),  # the fencing token of who labels it; NULL: nobody does
    Column("due_at", Double),  # when it may be begun: queued, or its lease has ended; NULL: it has ended
    Column("end_state", Text),  # succeeded, failed or cancelled
    Column("answer", LargeBinary),  # sealed: a Prediction, or a Problem
    # Of several jobs, one item of each is due before the second one of any.
    Index(
        "job_items_due",
        "position",
        "due_at",
        sqlite_where=text("due_at IS NOT NULL"),
        postgresql_where=text("due_at IS NOT NULL"),
    ),
    Index("job_items_by_upload", "upload_id"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Text, primary_key=True),  # the same however often it is sent
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("claim", LargeBinary),  # the fencing token of who sends it; NULL: nobody does
    Column("due_at", Double),  # when it may be sent; NULL: it was delivered, or given up
    Column("status", Integer),  # what its server answered last
    Column("reason", Text),  # why it did not
    Column("created_at", Double, nullable=False),
    Column("delivered_at", Double),
    Index("deliveries_by_job", "job_id"),
    Index("deliveries_due", "due_at"),
)
