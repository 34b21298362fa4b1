"""Progress of tasks that are trained side by side."""

import math
import sys

from tqdm import tqdm


class Progress:
    """A bar for each task on a terminal; elsewhere a line for each task every few epochs."""

    def __init__(self, log_interval):
        self.interval, self.bars, self.validation_taus = log_interval, {}, {}

    def __call__(self, name, epoch, epochs, loss, train_tau, validation_tau):
        """Show one epoch of the task `name`; a tau of None was not measured, NaN is that of one score for all.

        A bar fits 80 columns for names of up to 10 characters, and shows the last validation tau that was measured.
        """
        if not sys.stderr.isatty():
            if epoch % self.interval == 0 or epoch == epochs:
                taus = {"tau train (dropout on)": train_tau, "validation": validation_tau}
                figures = _figures(loss, taus, "none, as all scores are equal")
                print(f"{name:<10} epoch {epoch:>4}/{epochs}  {figures}", flush=True)
            return
        if name not in self.bars:
            form = f"{name:<10} {{n_fmt:>3}}/{{total_fmt}} {{bar:6}} {{desc}}"
            self.bars[name] = tqdm(total=epochs, position=len(self.bars), bar_format=form)
        bar = self.bars[name]
        if validation_tau is not None:
            self.validation_taus[name] = validation_tau
        taus = {"tau train": train_tau, "validation": self.validation_taus.get(name)}
        bar.set_description_str(_figures(loss, taus, f"{'none':>7}"), refresh=False)
        bar.update(epoch - bar.n)
        if epoch == epochs:
            bar.refresh()

    def close(self, finished=()):
        """Leave the bars as they are, those of the tasks `finished` full: a recipe may need fewer epochs."""
        for name, bar in self.bars.items():
            if name in finished:
                bar.total = bar.n
            bar.close()


def _figures(loss, taus, undefined):
    """Text of a loss and of {name: tau}; undefined: what is said of NaN."""
    known = {name: tau for name, tau in taus.items() if tau is not None}
    texts = [f"{name} {undefined if math.isnan(tau) else f'{tau:7.4f}'}" for name, tau in known.items()]
    return "  ".join([f"loss {loss:.4f}", *texts])
