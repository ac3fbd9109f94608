"""Ordered aggregates beside an application's own triggers, rules, views and foreign keys."""

from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from tests.conftest import Connect
from tests.integration import ordered_scenario
from tests.integration.scenario import Scenario, Stage
from tests.integration.test_write_effects import SCENARIOS
from tests.servers import Server


@pytest.fixture(scope="session")
def template(server: Server) -> str:
    return ordered_scenario.template(server)


@pytest.fixture
def stage(connect: Connect, database: URL) -> Iterator[Stage]:
    """The application's session, with a fold after every second statement."""
    with ordered_scenario.stage(connect, database, fold_every=2) as stage:
        yield stage


@pytest.mark.parametrize("script", SCENARIOS.values(), ids=SCENARIOS)
def test_effects(stage: Stage, script: Scenario) -> None:
    stage.play(script)
