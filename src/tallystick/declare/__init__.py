"""Frozen declarations and the registry that holds them; nothing here talks to a database."""
