"""The life cycle of aggregates: inspect, install, backfill, fold, verify, report, uninstall."""
