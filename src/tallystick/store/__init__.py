"""The only code that talks to PostgreSQL: connections, catalog, locks and fixed SQL."""
