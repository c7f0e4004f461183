"""Tasks: environments with their data and their reward convention."""

from exporl.envs.task import Task, list_tasks, make_task

__all__ = ["Task", "list_tasks", "make_task"]
