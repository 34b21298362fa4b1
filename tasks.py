"""The eight recognition tasks, and the settings for training the predictor of each.

Importing this module costs nothing (no torch), so that the command line can answer at once.
"""

from dataclasses import dataclass, field

from files import InputError


class SettingError(InputError):
    """A setting out of its range, or a task that does not exist."""


def _setting(help):
    return field(metadata={"help": help})


@dataclass(frozen=True)
class Task:
    """One task and the settings of its predictor; raises SettingError where a setting is out of its range."""

    name: str
    lr: float = _setting("Adam's learning rate, > 0")
    weight_decay: float = _setting("Adam's L2 weight decay, >= 0")
    batch_size: int = _setting("architectures per batch, >= 2 (the loss compares pairs)")
    train_ratio: float = _setting("share of the architectures in the training split, between 0 and 1")
    seed: int = _setting("seed of the weights, the dropout and the sampling orders, >= 0")
    dropout_ratio: float = _setting("probability of dropping a unit, 0 <= p < 1")
    cos: bool = _setting("anneal the learning rate to zero along a cosine")
    val_interval: int = _setting("epochs between validations, >= 1")
    snapshot: int = _setting("the snapshot that scores, counted from the best on validation (-1)")
    num_epochs: int = field(default=400, metadata={"help": "passes over the training split, >= 1"})
    keep: int = field(default=50, metadata={"help": "snapshots kept, the best on validation, >= 1"})

    @property
    def rank_key(self):
        """Name of the task's labels in the competition's files."""
        return f"{self.name}_rank"

    def __post_init__(self):
        for name, allowed, valid in (
            ("lr", "above 0 and at most 1e37, what float32 holds", 0 < self.lr <= 1e37),
            ("weight_decay", "at least 0 and at most 1e38, what float32 holds", 0 <= self.weight_decay <= 1e38),
            ("batch_size", "at least 2, since the loss compares pairs", self.batch_size >= 2),
            ("train_ratio", "above 0 and below 1", 0 < self.train_ratio < 1),
            ("seed", "from 0 to 2**63 - 1", 0 <= self.seed < 2**63),
            ("dropout_ratio", "at least 0 and below 1", 0 <= self.dropout_ratio < 1),
            ("val_interval", "at least 1", self.val_interval >= 1),
            ("snapshot", "negative, -1 for the best on validation", self.snapshot < 0),
            ("num_epochs", "at least 1", self.num_epochs >= 1),
            ("keep", "at least 1", self.keep >= 1),
        ):
            if not valid:
                raise SettingError(f"{name} {getattr(self, name)}: must be {allowed}")


#                   lr  decay batch ratio seed dropout cos every snapshot
TASKS = (
    Task("cplfw", 1e-3, 6e-4, 8, 0.7, 4, 0.4, False, 1, -1),
    Task("vehicleid", 1e-3, 6e-4, 25, 0.9, 4, 0.4, True, 5, -2),
    Task("dukemtmc", 5e-4, 6e-4, 25, 0.9, 4, 0.4, True, 1, -3),
    Task("market1501", 1e-3, 6e-4, 32, 0.9, 1, 0.5, False, 1, -7),
    Task("msmt17", 1e-3, 6e-4, 32, 0.8, 1, 0.4, True, 5, -4),
    Task("veri", 1e-3, 6e-4, 32, 0.8, 0, 0.5, True, 5, -1),
    Task("veriwild", 1e-3, 6e-4, 32, 0.8, 3, 0.5, True, 1, -43),
    Task("sop", 1e-3, 6e-4, 50, 0.8, 4, 0.5, True, 1, -4),
)


def find_task(name):
    """Task called `name`, either `cplfw` or `cplfw_rank`; raises SettingError where there is none."""
    for task in TASKS:
        if name in (task.name, task.rank_key):
            return task
    raise SettingError(f"unknown task '{name}': choose from {', '.join(task.name for task in TASKS)}")
