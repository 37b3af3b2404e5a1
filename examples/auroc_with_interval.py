"""An interval for the AUROC of your own predictions, over patients instead of images.

    python examples/auroc_with_interval.py

Two knees of a patient are alike: counted as two independent images they make an interval look surer than
it is. Put your own arrays in place of the made-up ones.
"""

import numpy as np

from trabecula.metrics.bootstrap import degrees_of_freedom, interval, resample
from trabecula.metrics.classification import auroc

generator = np.random.default_rng(0)
patients = np.repeat(np.arange(120), 2)  # (n,) two knees each
sick = np.repeat(generator.random(120) < 0.4, 2).astype(int)  # (n,) truth
score = sick + np.repeat(generator.normal(0, 1, 120), 2) + generator.normal(0, 0.5, 240)  # (n,)

draws = auroc(sick, score, resample(patients, num_resamples=2000, seed=0))
counts = [len(np.unique(patients[sick == k])) for k in (0, 1)]
found = interval(auroc(sick, score), draws[:, None], degrees_of_freedom(counts))
print(f"AUROC {found.value:.3f} (95 % interval {found.low:.3f} to {found.high:.3f}), {sum(counts)} patients")
