"""Tasks: environments with their data and their reward convention."""

from exporl.envs.check import check_task
from exporl.envs.custom import custom_task
from exporl.envs.registry import list_tasks, make_task
from exporl.envs.task import Task

__all__ = ["Task", "check_task", "custom_task", "list_tasks", "make_task"]
