"""Registries of what the fixtures hold, for the command line."""

from tests.upgrade.install import declared

layout1 = declared(counters=False, orders=False)
layout2 = declared(counters=True, orders=False)
layout3 = declared(counters=True, orders=True)
