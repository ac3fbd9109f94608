"""Whether there is something kept that can be compared, mended or served."""

from __future__ import annotations

from tallystick.errors import NotKept, NotWhole
from tallystick.store import aggregates, partitions
from tallystick.store.aggregates import Installed
from tallystick.store.connection import Cursor


def refuse_incomplete(cursor: Cursor, schema: str, found: Installed, command: str) -> None:
    """Raise what keeps a command from working on an aggregate, with what to run before it.

    Raises:
        InstallError: no trigger captures the source's changes.
        NotKept: it is not backfilled, or, if ordered, of a source that was written anew since the last fold.
        NotWhole: its partitions are not those that are counted.
    """
    name = found.name
    aggregates.refuse_uncaptured(cursor, schema, name)
    if found.phase == "building":
        raise NotKept(
            f'aggregate "{name}" is not backfilled: nothing is kept that could be served.',
            hint=f"Run: tally backfill {name} && tally {command} {name}",
        )
    lacking = partitions.differences(cursor, schema, found)
    if lacking:
        before = "fold" if all(difference.what == "new" for difference in lacking) else "backfill"
        raise NotWhole(
            f'aggregate "{name}": {"; ".join(map(str, lacking))}. Readers are served by the source.',
            hint=f"Run: tally {before} {name} && tally {command} {name}",
        )
    if found.ordering is not None and not aggregates.is_as_folded(cursor, schema, found):
        raise NotKept(
            f'aggregate "{name}": {found.source} was truncated, written anew or restored since the last fold.',
            hint=f"Run: tally fold {name} && tally {command} {name}",
        )
