"""The command `tally`: one file per group of commands, one way to print results, progress and errors."""

from tallystick.cli.app import app, main

__all__ = ["app", "main"]
