"""What is played: a task, the protocol it is played by, and many copies of it at once."""

from potstill.tasks.envs import Envs, EpisodeSeeds
from potstill.tasks.spec import GYMNASIUM, RUSU2016, Protocol, Task, make_task

__all__ = ["GYMNASIUM", "RUSU2016", "Envs", "EpisodeSeeds", "Protocol", "Task", "make_task"]
