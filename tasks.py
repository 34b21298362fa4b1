"""The competition: its files, its eight recognition tasks, and the settings for training the predictor of each.

Importing this module costs nothing (no torch), so that the command line can answer at once.
"""

import re
from dataclasses import dataclass, field

from common.files import InputError

TRAIN_FILE = "CVPR_2022_NAS_Track2_train.json"
TEST_FILE = "CVPR_2022_NAS_Track2_test.json"
OWN_NAMES = {TRAIN_FILE: "train.json", TEST_FILE: "test.json"}  # of the same in a user's own folder
FILES = (*OWN_NAMES, *OWN_NAMES.values())
TRUTH_FILE = "truth.json"  # the test file with its true ranks, where they are known
# Allowed task names. A leading `-` would look like a flag; a trailing `_rank` or `_accuracy` would name the labels.
TASK_NAME = r"(?!-)(?!.*_(?:rank|accuracy)$)[A-Za-z0-9_-]+"


def _setting(default, help):
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Task:
    """A task and its settings; the defaults are the reference's, for a task that has none of its own."""

    name: str
    lr: float = _setting(1e-3, "learning rate, > 0")
    weight_decay: float = _setting(3e-4, "L2 weight decay, >= 0")
    batch_size: int = _setting(16, "architectures a batch, >= 2")
    train_ratio: float = _setting(0.9, "share of the architectures that trains, between 0 and 1; the rest validates")
    seed: int = _setting(1, "seed of all random numbers, >= 0")
    dropout_ratio: float = _setting(0.5, "probability of dropping a unit, 0 <= p < 1")
    cos: bool = _setting(False, "anneal the learning rate to zero along a cosine")
    val_interval: int = _setting(1, "epochs between validations, >= 1")
    snapshot: int = _setting(-1, "the snapshot that scores, counted from the best on validation (-1)")
    num_epochs: int = _setting(400, "passes over the training split, >= 1")
    keep: int = _setting(50, "snapshots kept, the best on validation, >= 1")

    @property
    def rank_key(self):
        """Name of the task's ranks in the competition's files."""
        return f"{self.name}_rank"

    def split_sizes(self, n):
        """Sizes of the training split, the first of n architectures, and of the validation split, the rest."""
        n_train = int(self.train_ratio * n)
        return n_train, n - n_train

    def validations(self):
        """Number of validations of a whole training: after epoch 1 and every val_interval epochs."""
        return self.num_epochs // self.val_interval + (self.val_interval > 1)

    def __post_init__(self):
        for name, allowed, valid in (
            ("name", "made of letters, digits, _ and -", re.fullmatch(TASK_NAME, self.name)),
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
                raise InputError(f"{name} {getattr(self, name)}: must be {allowed}")


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
    """Task called `name`: one of the eight, or one with the default settings. Raises InputError for another name.

    The name of its labels, `sop_rank` or `sop_accuracy`, names the task, too.
    """
    name = re.sub(r"_(rank|accuracy)$", "", name)
    return next((task for task in TASKS if task.name == name), None) or Task(name)
