"""The state machine over ordered aggregates, with buckets of a few items so that a few rows make several levels."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property.ordered import OrderedMachine, World
from tests.servers import Server

settings.register_profile("ordered", settings.get_profile("machine"), max_examples=5, stateful_step_count=10)


@pytest.fixture(scope="module")
def machine(server: Server) -> Iterator[type[OrderedMachine]]:
    """The machine bound to a world of its own, whose functions are compiled for small buckets."""
    with pytest.MonkeyPatch.context() as small:
        small.setattr("tallystick.compiler.buckets.ITEMS", 4)
        small.setattr("tallystick.compiler.buckets.PLACES", 3)
        world = World(server)
        yield type("BoundMachine", (OrderedMachine,), {"world": world})
        world.close()


def test_every_read_is_that_of_a_sorted_list(machine: type[OrderedMachine]) -> None:
    profile = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "ordered"))
    run_state_machine_as_test(machine, settings=profile)
