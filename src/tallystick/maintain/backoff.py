"""Backing off: what has failed is left alone for longer and longer, and forgiven by the first success."""

from __future__ import annotations

import random
import time

FIRST_S = 1.0


class Backoff:
    """Failures by subject. After the n-th in a row, a subject rests for 2^(n-1) seconds, somewhat at random."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._failures: dict[str, tuple[int, float]] = {}

    def is_resting(self, subject: str) -> bool:
        return subject in self._failures and time.monotonic() < self._failures[subject][1]

    def failed(self, subject: str) -> float:
        """Note a failure; for how many seconds the subject rests now."""
        count = self._failures.get(subject, (0, 0.0))[0] + 1
        rest_s = min(FIRST_S * 2.0 ** min(count - 1, 30), self._longest_s)
        rest_s *= random.uniform(0.75, 1)  # noqa: S311 (a jitter, not a secret)
        self._failures[subject] = (count, time.monotonic() + rest_s)
        return rest_s

    def succeeded(self, subject: str) -> None:
        self._failures.pop(subject, None)
