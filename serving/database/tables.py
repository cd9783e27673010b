"""All tables of the database, as the newest migration leaves them. Knows no rows.

    idempotent_answers   a request that carried a key: who executes it, what was answered
    usage_by_day         what a process has counted for a key on a day: a bill is the sum over processes
    uploads              whose files there are beside the database, of which size they are to be, until when

A change here goes with a file in migrations/versions, which makes it; a test holds the two together. Times are Unix
times by the database's own clock (serving.database.core).
"""

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, LargeBinary, MetaData, Table, Text

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
