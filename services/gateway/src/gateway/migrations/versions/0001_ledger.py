"""The first ledger: entries, their events, jobs, keys, answered requests, the turn and the site."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SECONDS = sa.Float(precision=53)
TEXT_JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("workers", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("lease_until", SECONDS, nullable=False),
        sa.Column("submitted", sa.Boolean(), nullable=False),
        sa.Column("closed", sa.Boolean(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("stopping_since", SECONDS),
        sa.Column("created", SECONDS, nullable=False),
    )
    op.create_index("jobs_open", "jobs", ["closed", "lease_until"])
    op.create_table(
        "entries",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("identity", sa.String(64)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("request", TEXT_JSON, nullable=False),
        sa.Column("resolved", TEXT_JSON, nullable=False),
        sa.Column("workers", sa.Integer(), nullable=False),
        sa.Column("job_group", sa.String(100)),
        sa.Column("progress", TEXT_JSON),
        sa.Column("note", sa.Text()),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("faults", sa.Integer(), nullable=False),
        sa.Column("turn_after", SECONDS, nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id")),
        sa.Column("result", TEXT_JSON),
        sa.Column("failure", TEXT_JSON),
        sa.Column("created", SECONDS, nullable=False),
        sa.Column("started", SECONDS),
        sa.Column("ended", SECONDS),
        sa.Column("created_by", sa.String(100), nullable=False),
        sa.Column("last_seq", sa.Integer(), nullable=False),
    )
    op.create_index("entries_by_kind", "entries", ["kind", "id"])
    op.create_index("entries_by_state", "entries", ["state", "id"])
    op.create_index("entries_by_identity", "entries", ["identity"])
    op.create_index("entries_by_key", "entries", ["kind", "key"], unique=True)
    op.create_index("entries_by_job", "entries", ["job_id"])
    op.create_table(
        "events",
        sa.Column("entry_id", sa.String(64), sa.ForeignKey("entries.id"), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("at", SECONDS, nullable=False),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("progress", TEXT_JSON),
        sa.Column("note", sa.Text()),
    )
    op.create_table(
        "requests",
        sa.Column("who", sa.String(100), primary_key=True),
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("entry_id", sa.String(64), sa.ForeignKey("entries.id"), nullable=False),
        sa.Column("created", SECONDS, nullable=False),
    )
    op.create_index("requests_by_age", "requests", ["created"])
    op.create_table(
        "keys",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("scopes", sa.String(100), nullable=False),
        sa.Column("created", SECONDS, nullable=False),
        sa.Column("revoked", SECONDS),
    )
    turn = op.create_table(
        "turn",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "site",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("home", sa.Text(), nullable=False),
        sa.Column("store", sa.Text(), nullable=False),
    )
    op.bulk_insert(turn, [{"id": 1, "count": 0}])


def downgrade() -> None:
    for table in ("requests", "events", "entries", "turn", "site", "keys", "jobs"):
        op.drop_table(table)
