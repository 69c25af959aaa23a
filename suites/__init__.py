"""Suites of tasks: each module defines its tasks as a list `TASKS`; `tasks.py` collects them."""
