"""Commands in hints repeat the options of the command that tells them."""

import pytest

from tallystick.cli.hints import repeated

APP, SCHEMA = " --app shop:tally", " --schema other"


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("Run: tally fold x && tally verify x", "", "Run: tally fold x && tally verify x"),
        ("Run: tally fold x && tally verify x", SCHEMA,
         "Run: tally fold x --schema other && tally verify x --schema other"),
        ("tally uninstall x && tally install x", SCHEMA,
         "tally uninstall x --schema other && tally install x --app MODULE:REGISTRY"),
        ("tally uninstall x && tally install x", APP,
         "tally uninstall x --app shop:tally && tally install x --app shop:tally"),
        ("Run: tally counter reset c. Yes.", SCHEMA, "Run: tally counter reset c --schema other. Yes."),
        ("tally detach s.p; then: tally fold x --all", SCHEMA,
         "tally detach s.p --schema other; then: tally fold x --all --schema other"),
        ("tally worker, whose log tells why", SCHEMA, "tally worker --schema other, whose log tells why"),
        ("tally upgrade --app module:registry, with care", APP, "tally upgrade --app module:registry, with care"),
        ("See: tally plan x", SCHEMA, "See: tally plan x --app MODULE:REGISTRY"),
        ("Run: tally redefine --abort x, then tally redefine x", SCHEMA,
         "Run: tally redefine --abort x --schema other, then tally redefine x --app MODULE:REGISTRY"),
        ("Run: tally backfill x --schema other", SCHEMA, "Run: tally backfill x --schema other"),
        ("Run: tally fold x.", " --schema 'my tally'", "Run: tally fold x --schema 'my tally'."),
        ("Declare aggregates (tally init)", APP, "Declare aggregates (tally init)"),
        ("in the schema tally; tally-ho, totally tally.", APP, "in the schema tally; tally-ho, totally tally."),
    ],
)  # fmt: skip
def test_repeated(text: str, options: str, expected: str) -> None:
    assert repeated(text, options) == expected
