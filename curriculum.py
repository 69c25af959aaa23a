"""Which problems when."""

import random
from typing import Any

from cli import UserError
from suites.base import Problem


class Bag:
    """Problems in random order, every one of the pool once before any comes again."""

    def __init__(self, pool: list[Problem], seed: int):
        self.pool, self.random = pool, random.Random(seed)
        self.left: list[int] = []

    def take(self, count: int) -> list[Problem]:
        """The next `count`, at most as many as the pool has."""
        if len(self.left) < count:
            self.left += self.random.sample(range(len(self.pool)), len(self.pool))
        taken, self.left = self.left[:count], self.left[count:]
        return [self.pool[i] for i in taken]

    def state(self) -> dict[str, Any]:
        """What `restore` takes, as plain JSON values."""
        return {"size": len(self.pool), "left": self.left, "random": self.random.getstate()}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken."""
        if state["size"] != len(self.pool):
            raise UserError(
                f"the pool has {len(self.pool)} problems and had {state['size']}: resume with the same --tasks and "
                "--problems_per_task"
            )
        version, internal, gauss = state["random"]
        self.random.setstate((version, tuple(internal), gauss))
        self.left = list(state["left"])
