"""Score the test architectures with the trained predictors and write the submission.

    python test.py                             all eight tasks, the snapshots their checkpoints record
    python test.py --tasks cplfw sop           fill only these fields
    python test.py --model_path_index -1       the best snapshot on validation, for every task
    python test.py --recipe ensemble           what main.py --recipe ensemble trained

Writes Track2_submitA_<save_name>.json, the test file with its rank fields filled in, in the current folder.
"""

from pathlib import Path

import cli


def parse_arguments(argv=None):
    parser = cli.Parser(description=__doc__)
    cli.add_shared_arguments(parser)
    cli.add_recipe(parser, "test")
    parser.add_argument(
        "--model_path_index",
        type=int,
        metavar="INDEX",
        help="snapshot by validation tau, -1 the best (default: as recorded)",
    )
    parser.add_argument(
        "--uncertainty",
        type=cli.output_file,
        metavar="FILE",
        help="write how far the ensemble is at odds: the standard deviation of each rank over it, as JSON",
    )
    args = parser.parse_args(argv)
    if args.uncertainty and args.recipe != "ensemble":
        parser.error("--uncertainty: only with --recipe ensemble, which has several opinions")
    if args.model_path_index is not None and args.recipe == "ensemble":
        parser.error("--model_path_index: an ensemble has no snapshots to choose from")
    cli.choose_recipe(args, "test")
    return args


def main():
    args = parse_arguments()
    # Imported only now, so that --help does not wait for torch.
    import checkpoint
    from dataset import TEST_FILE, load_test
    from scoring import score, write_submission

    cli.check_device(args.device)
    if args.recipe == "ensemble":
        import ensemble

        cli.choose_folders(args)
        loaded = [ensemble.load(checkpoint.path_of(args.results_path, task, args.recipe), task) for task in args.tasks]
        ensembles = [ensemble.pick(content) for content in loaded]
        for task, each in zip(args.tasks, ensembles, strict=True):
            print(f"{task.name:<10}  a Gaussian process and {len(each.members)} predictors", flush=True)
        train, data = cli.training_file(args)
        others = [task.name for task, content in zip(args.tasks, loaded, strict=True) if content.get("data") != data]
        if others:
            print(f"not trained on {train}: {', '.join(others)}; used all the same")
        if args.uncertainty:
            cli.make_folder(args.uncertainty.parent)
    else:
        chosen = []
        for task, (path, content) in zip(args.tasks, cli.load_checkpoints(args), strict=True):
            chosen.append(checkpoint.pick(path, content, args.model_path_index))
            print(f"{task.name:<10}  snapshot {chosen[-1].index:>3}  validation tau {chosen[-1].ktau:.4f}", flush=True)
    architectures, content = load_test(Path(args.data_path, TEST_FILE))
    if args.recipe == "ensemble":
        opinions = ensemble.opinions(ensembles, architectures, args.device)
        scores = [ensemble.combine(opinion) for opinion in opinions]
    else:
        scores = score([snapshot.state_dict for snapshot in chosen], architectures, args.device)
    submission = write_submission(args.save_name, content, args.tasks, scores)
    print(f"{submission}: {len(architectures)} architectures ranked for {len(args.tasks)} tasks")
    if args.uncertainty:
        ensemble.write_uncertainty(args.uncertainty, content, args.tasks, opinions)
        print(f"{args.uncertainty}: the standard deviation of each rank")


if __name__ == "__main__":
    cli.run(main)
