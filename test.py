"""Score the test architectures with the trained predictors and write the submission.

    python test.py                             all tasks, the snapshots that their checkpoints record
    python test.py --tasks cplfw sop           fill in only these fields
    python test.py --model_path_index -1       the best snapshot on validation; needs your own checkpoints
    python test.py --recipe gp --uncertainty intervals.json

Writes Track2_submitA_<save_name>.json, the test file with its rank fields filled in, in the current folder.
"""

import startup

if __name__ == "__main__":
    startup.prepare()

import cli
from recipes import PROBABILITY


def parse_arguments():
    """Parse the flags."""
    parser = cli.Parser(description=__doc__)
    cli.add_predictors(parser)
    cli.add_recipe(parser, "test")
    parser.add_argument(
        "--model_path_index",
        type=int,
        metavar="INDEX",
        help="index of a snapshot, sorted by validation tau: -1 is the best, 0 the worst (default: the recorded one)",
    )
    parser.add_argument(
        "--uncertainty",
        type=cli.output_file,
        metavar="FILE",
        help=f"with --recipe gp, write intervals that hold the true rank with probability {PROBABILITY}, as JSON",
    )
    cli.add_largest(parser)
    args = parser.parse_args()
    cli.fill_save_name(args)
    return args


def main():
    args = parse_arguments()
    from submission import rank_test_file  # only now: `--help` and a wrong flag need not wait for torch

    rank_test_file(args)


if __name__ == "__main__":
    cli.run(main)
