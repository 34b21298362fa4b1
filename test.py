"""Rank the test architectures with the trained predictors and write the submission.

    python test.py                             all tasks, the snapshots that their checkpoints record
    python test.py --tasks cplfw sop           fill in only these fields
    python test.py --model_path_index -1       the best snapshot on validation; needs your own checkpoints
    python test.py --recipe gp --uncertainty intervals.json

Writes Track2_submitA_<save_name>.json, the test file with its rank fields filled in, in the current folder.
"""

import os
import shlex
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # not there with PYTHONSAFEPATH

import cli
from common.files import InputError, log
from recipes import RECIPES

WINNERS = "too narrow for the top of the ranking: those architectures were selected by their predictions"


def parse_arguments(argv):
    """Parse the flags."""
    parser = cli.Parser(description=__doc__)
    cli.add_predictors(parser)
    help = (
        "name of the submission (default: test_final; test_RECIPE with another recipe; test_NAME_... for NAME's data)"
    )
    parser.add_argument("--save_name", type=cli.file_name, help=help)
    help = "index of a snapshot, sorted by validation tau: -1 is the best, 0 the worst (default: the recorded one)"
    parser.add_argument("--model_path_index", type=int, metavar="INDEX", help=help)
    help = f"with --recipe gp, write intervals that hold the true rank with probability {cli.PROBABILITY}, as JSON"
    parser.add_argument("--uncertainty", type=cli.output_file, metavar="FILE", help=help)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_arguments(argv)
    # Only now: `--help` and a wrong flag need not wait for torch.
    import recipes
    from engine.submission import submission_path, write_submission

    if args.uncertainty and recipes.get(args.recipe).rank_interval is None:
        raise InputError(f"--uncertainty: the recipe {args.recipe} has no rank intervals: use --recipe gp")
    data = cli.open_data(args.data_path)
    if not data.test_file.exists():
        raise InputError(f"{data.test_file}: is missing: put the architectures to rank there, entries with 'arch'")
    predictors = cli.load_predictors(args, data, snapshot=args.model_path_index)
    for predictor in predictors:
        log.info(f"{predictor.task.name:<10}  {predictor.recipe.describe(predictor.checkpoint, predictor.snapshot)}")
    path = submission_path(args.save_name or data.output_name("test", RECIPES[args.recipe]))
    used = [predictor.path for predictor in predictors]
    data.check_output(path, used)
    if args.uncertainty:
        data.check_output(args.uncertainty, [*used, path])
    count = write_submission(predictors, data.test_file, path, args.uncertainty, args.device, cli.PROBABILITY)
    log.info(f"{path}: {count} architectures ranked for {len(predictors)} task{'s' * (len(predictors) != 1)}")
    if args.uncertainty:
        log.info(f"{args.uncertainty}: intervals that hold the true rank with probability {cli.PROBABILITY}; {WINNERS}")
    if data.truth_file.exists():
        words = [path, data.truth_file, *(["--uncertainty", args.uncertainty] if args.uncertainty else [])]
        score = f"{cli.quoted_path('tools', 'score.py')} {shlex.join(map(str, words))}"
        log.info(f"next: python {score} compares it with the true ranks")


if __name__ == "__main__":
    cli.run(main)
