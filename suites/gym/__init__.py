"""The data sets of reasoning-gym, by family."""

from suites.base import Task
from suites.gym import basic

TASKS: list[Task] = [*basic.TASKS]
