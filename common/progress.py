"""Progress of tasks that are trained side by side."""

import math
import sys

from tqdm import tqdm


class Progress:
    """A bar for each task on a terminal; elsewhere a line for each task every few epochs."""

    def __init__(self, log_interval):
        self.interval, self.bars = log_interval, {}

    def __call__(self, name, epoch, epochs, loss, train_tau, validation_tau):
        """Show one epoch of the task `name`; a tau of None was not measured, NaN is that of one score for all."""
        figures = f"loss {loss:.4f}"
        for what, tau in (("tau train (dropout on)", train_tau), ("validation", validation_tau)):
            if tau is not None:
                figures += f"  {what} {'none, as all scores are equal' if math.isnan(tau) else f'{tau:7.4f}'}"
        if not sys.stderr.isatty():
            if epoch % self.interval == 0 or epoch == epochs:
                print(f"{name:<10} epoch {epoch:>4}/{epochs}  {figures}", flush=True)
            return
        if name not in self.bars:
            form = f"{name:<10} {{n_fmt:>4}}/{{total_fmt}} {{bar:20}} {{desc}}"
            self.bars[name] = tqdm(total=epochs, position=len(self.bars), bar_format=form)
        bar = self.bars[name]
        bar.set_description_str(figures, refresh=False)
        bar.update(epoch - bar.n)
        if epoch == epochs:
            bar.refresh()

    def close(self):
        """Leave the bars as they are."""
        for bar in self.bars.values():
            bar.close()
