"""The demo: 336,776 real flights, aggregates installed while writers write, and both halves timed side by side."""

from tallystick.demo.run import DemoReport, run

__all__ = ["DemoReport", "run"]
