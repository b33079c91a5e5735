"""PostgreSQL: one database, shared by any number of workers on any number of hosts."""

from triggerflow.store.postgres.store import PostgresStore as PostgresStore

__all__ = ["PostgresStore"]
