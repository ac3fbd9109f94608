"""What a benchmark reports: medians of interleaved rounds, against a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Literal

Bound = Literal["at least", "at most", "under"]
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number with its target.

    Attributes:
        name: what was measured.
        value: the median of `samples`, in `unit`.
        samples: one value per round, or per call.
        target: None for information.
        bound: which side of the target is good.
        aim: a better value, wished for and not asked for.
        baseline: median of what the candidate is compared with, in a unit that `name` implies (rate or time).
        candidate: the same of the candidate.
    """

    name: str
    unit: str
    samples: Sequence[float]
    target: float | None = None
    bound: Bound = "at most"
    aim: float | None = None
    baseline: float | None = None
    candidate: float | None = None

    @property
    def value(self) -> float:
        return median(self.samples)

    @property
    def is_met(self) -> bool:
        if self.target is None:
            return True
        if self.bound == "at least":
            return self.value >= self.target
        return self.value < self.target if self.bound == "under" else self.value <= self.target

    def line(self) -> str:
        """For people: median, the middle half of the samples, target and verdict."""
        text = f"{self.name}: {self.value:,.4g} {self.unit} ({self._quartile(1):,.4g} to {self._quartile(3):,.4g})"
        if self.target is None:
            return text
        return f"{text}, target {self.bound} {self.target:,g}: {'met' if self.is_met else 'MISSED'}"

    def _quartile(self, number: int) -> float:
        if len(self.samples) == 1:
            return self.samples[0]
        return quantiles(self.samples, n=4, method="inclusive")[number - 1]

    def as_dict(self) -> dict[str, object]:
        """JSON; keys without a meaning for this figure are left out."""
        found: dict[str, object] = {
            "name": self.name,
            "value": _rounded(self.value),
            "unit": self.unit,
            "spread": [_rounded(min(self.samples)), _rounded(max(self.samples))],
            "quartiles": [_rounded(self._quartile(1)), _rounded(self._quartile(3))],
            "rounds": len(self.samples),
        }
        if self.target is not None:
            found |= {"target": self.target, "bound": self.bound, "met": self.is_met}
        optional = {"aim": self.aim, "baseline_median": self.baseline, "candidate_median": self.candidate}
        return found | {key: _rounded(value) for key, value in optional.items() if value is not None}


def ratio(
    name: str,
    measured: Mapping[str, Sequence[float]],
    baseline: str,
    candidate: str,
    *,
    target: float | None = None,
    bound: Bound = "at most",
    aim: float | None = None,
) -> Figure:
    """Candidate over baseline, round by round, from what `interleaved` measured."""
    pairs = zip(measured[candidate], measured[baseline], strict=True)
    return Figure(
        name, "ratio", [ours / theirs for ours, theirs in pairs], target, bound, aim,
        baseline=median(measured[baseline]), candidate=median(measured[candidate]),
    )  # fmt: skip


def interleaved(runs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure A B, B A, A B, …: what drifts on the machine, and what going first costs, meets all alike."""
    measured: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name in list(runs) if number % 2 == 0 else reversed(list(runs)):
            measured[name].append(runs[name]())
    return measured


def report(
    bench: str, *, quick: bool, machine: dict[str, object], found: Sequence[Figure], notes: Sequence[str] = ()
) -> dict[str, object]:
    """What `run` returns: figures have a target, information has none."""
    return {
        "bench": bench,
        "quick": quick,
        "machine": machine,
        "figures": [figure.as_dict() for figure in found if figure.target is not None],
        "information": [figure.as_dict() for figure in found if figure.target is None],
        "notes": list(notes),
    }


def silent(_line: str) -> None:
    """Progress that nobody follows."""


def _rounded(value: float) -> float:
    """Five significant digits: more would be noise."""
    return float(f"{value:.5g}")
