"""Tasks: what a model's logits mean, and when two answers are the same; exits keep them the same."""

from moco_rt.architectures.tasks.base import Task
from moco_rt.architectures.tasks.multi_label import MultiLabel, probabilities
from moco_rt.architectures.tasks.ranking import Ranking
from moco_rt.architectures.tasks.regression import Regression
from moco_rt.architectures.tasks.single_label import Flags, SingleLabel, check_single_label, log_odds, softmax
from moco_rt.architectures.tasks.task_of_model import SINGLE_LABEL, TASKS, check_label_names, task_from, task_of

__all__ = [
    "SINGLE_LABEL",
    "TASKS",
    "Flags",
    "MultiLabel",
    "Ranking",
    "Regression",
    "SingleLabel",
    "Task",
    "check_label_names",
    "check_single_label",
    "log_odds",
    "probabilities",
    "softmax",
    "task_from",
    "task_of",
]
