"""The data sets of reasoning-gym, by family."""

from suites.base import Task
from suites.gym import basic, grids, numbers, words

TASKS: list[Task] = [*basic.TASKS, *grids.TASKS, *numbers.TASKS, *words.TASKS]
