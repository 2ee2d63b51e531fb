"""What is played: a task, the protocol it is played by, and many copies of it at once."""

from potstill.tasks.envs import Envs, EpisodeSeeds
from potstill.tasks.spec import GYMNASIUM, RUSU2016, Protocol, Task, check_share_a_trunk, make_task

__all__ = ["GYMNASIUM", "RUSU2016", "Envs", "EpisodeSeeds", "Protocol", "Task", "check_share_a_trunk", "make_task"]
