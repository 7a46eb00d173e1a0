"""Numbers that follow the progress of a run."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class Schedule:
    r"""A number that goes from `start` to `end` while the progress $p$ of the run goes from `begin` to `until`.

    $$ w(p) = w_0 + s(t)\,(w_1 - w_0),\qquad t = \mathrm{clip}\!\left(\frac{p - p_0}{p_1 - p_0}, 0, 1\right) $$

    with $s(t) = t$ (`linear`), $\tfrac12 (1 - \cos \pi t)$ (`cosine`), or 0 before `until` and 1 from there on (`step`). Because
    it takes progress (:func:`progress_of`) and not steps, a run with a time budget gets through all of it.

    In a recipe a plain number is a schedule that stays where it is: ``force_weight: 10``, or ``{start: 100, end: 10}``.

    Attributes:
      start, end: >= 0, before and after.
      begin, until: progress, 0 <= begin <= until <= 1.
      shape: of the way between.

    Raises:
      ValueError: for numbers outside these ranges.
    """

    start: float
    end: float
    begin: float = 0.0
    until: float = 1.0
    shape: Literal["linear", "cosine", "step"] = "linear"

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be >= 0, received {getattr(self, name)}")
        if not 0 <= self.begin <= self.until <= 1:
            raise ValueError(
                f"0 <= begin <= until <= 1 must hold, received begin {self.begin} and until {self.until}"
            )

    @classmethod
    def constant(cls, value: float) -> "Schedule":
        """The same all the time."""
        return cls(value, value)

    @property
    def largest(self) -> float:
        """0 if the number is 0 throughout, so that nothing has to be computed for it."""
        return max(self.start, self.end)

    def __call__(self, progress: float) -> float:
        """The number at a progress between 0 and 1."""
        if progress >= self.until:
            return self.end
        if progress <= self.begin or self.shape == "step":
            return self.start
        way = (progress - self.begin) / (self.until - self.begin)
        if self.shape == "cosine":
            way = 0.5 * (1 - math.cos(math.pi * way))
        return self.start + way * (self.end - self.start)


class _OrNumber:
    """Annotation of a field that holds a schedule, in files a plain number if it is constant."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(_written)
        return core_schema.no_info_before_validator_function(
            _read, handler(source), serialization=written
        )


Weight = Annotated[Schedule, _OrNumber()]


def _read(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Schedule.constant(float(value))
    if isinstance(value, Mapping | Schedule):
        return value
    raise ValueError(
        "a weight must be a number, or {start: ..., end: ...} with begin, until and shape if wanted, "
        f"received {value!r}"
    )


def _written(value: Schedule) -> float | dict[str, Any]:
    return value.start if value == Schedule.constant(value.start) else asdict(value)


def progress_of(
    *, steps: float, total_steps: float, elapsed: float, max_seconds: float | None
) -> float:
    """How much of the run is done, 0 to 1: the larger of the fractions of steps and of time."""
    progress = steps / total_steps
    if max_seconds is not None:
        progress = max(progress, elapsed / max_seconds)
    return min(progress, 1.0)
