"""Alembic's entry: migrations run on the connection that gateway.ledger.database gives."""

from alembic import context

from gateway.ledger.tables import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    transaction_per_migration=False,
)
context.run_migrations()
