"""The state machines, over a plain table and over a partitioned one, on each server."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property.machine import Machine, World
from tests.property.partitioned import PartitionedMachine, PartitionedWorld
from tests.servers import Server

KINDS: dict[str, tuple[type[World], type[Machine]]] = {
    "plain": (World, Machine),
    "partitioned": (PartitionedWorld, PartitionedMachine),
}


@pytest.fixture(scope="module", params=KINDS)
def machine(server: Server, request: pytest.FixtureRequest) -> Iterator[type[Machine]]:
    """A machine bound to a world of its own."""
    world_of, machine_of = KINDS[request.param]
    world = world_of(server)
    yield type("BoundMachine", (machine_of,), {"world": world})
    world.close()


def test_kept_equals_direct_after_every_step(machine: type[Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tallystick.maintain.patience.LOCK_ATTEMPTS", 2)
    monkeypatch.setattr("tallystick.maintain.patience.LOCK_PAUSE_S", 0.01)
    monkeypatch.setattr("tallystick.store.locks.TRIES", 2)
    profile = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "machine"))
    run_state_machine_as_test(machine, settings=profile)
