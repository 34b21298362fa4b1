"""Score the test architectures with the trained predictors and write the submission.

    python test.py                             all eight tasks, the snapshots their checkpoints record
    python test.py --tasks cplfw sop           fill only these fields
    python test.py --model_path_index -1       the best snapshot on validation, for every task

Writes Track2_submitA_<save_name>.json, the test file with its rank fields filled in, in the current folder.
"""

from pathlib import Path

import cli


def parse_arguments(argv=None):
    parser = cli.Parser(description=__doc__)
    cli.add_shared_arguments(parser)
    parser.add_argument(
        "--save_name", type=cli.file_name, default="test_final", help="name of the submission (default: test_final)"
    )
    parser.add_argument(
        "--model_path_index",
        type=int,
        metavar="INDEX",
        help="snapshot by validation tau, -1 the best (default: as recorded)",
    )
    return parser.parse_args(argv)


def main():
    args = parse_arguments()
    # Imported only now, so that --help does not wait for torch.
    import checkpoint
    from dataset import TEST_FILE, load_test
    from scoring import score, write_submission

    cli.check_device(args.device)
    chosen = []
    for task, (path, content) in zip(args.tasks, cli.load_checkpoints(args), strict=True):
        chosen.append(checkpoint.pick(path, content, args.model_path_index))
        print(f"{task.name:<10}  snapshot {chosen[-1].index:>3}  validation tau {chosen[-1].ktau:.4f}", flush=True)
    architectures, content = load_test(Path(args.data_path, TEST_FILE))
    scores = score([snapshot.state_dict for snapshot in chosen], architectures, args.device)
    submission = write_submission(args.save_name, content, args.tasks, scores)
    print(f"{submission}: {len(architectures)} architectures ranked for {len(args.tasks)} tasks")


if __name__ == "__main__":
    cli.run(main)
