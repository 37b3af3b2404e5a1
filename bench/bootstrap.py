"""2,000 patient bootstraps of an AUROC against a loop over scikit-learn: `python bench/bootstrap.py`.

828 patients with two images each, the same draws for both sides, the two timed in turn in one
process. `ours_s` holds drawing the patients as well; the peer's draws are made beforehand.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from sklearn.metrics import roc_auc_score

from trabecula.metrics.bootstrap import interval, resample
from trabecula.metrics.classification import auroc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=828)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(args.patients), 2)
    y = (rng.normal(size=args.patients)[patients] + rng.normal(size=patients.size) > 0.4).astype(int)
    score = 0.7 * y + rng.normal(size=args.patients)[patients] + rng.normal(size=patients.size)
    smaller = min(np.unique(patients[y == k]).size for k in (0, 1))
    weights = resample(patients, args.resamples, seed=0)
    rows = [np.repeat(np.arange(patients.size), w.astype(int)) for w in weights]  # images as drawn
    auroc(y, score, resample(patients, args.resamples, seed=1))  # both warm: imports, page faults
    roc_auc_score(y, score)
    ours, peer = [], []
    for _ in range(args.repeats):
        start = time.perf_counter()
        draws = auroc(y, score, resample(patients, args.resamples, seed=0))
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        loop = np.array([roc_auc_score(y[row], score[row]) for row in rows])
        peer.append(time.perf_counter() - start)
    found = [interval(auroc(y, score), d, smaller - 1) for d in (draws, loop)]
    ratios = np.array(peer) / np.array(ours)
    line = {
        "name": "bootstrap",
        "ours_s": round(float(np.median(ours)), 5),
        "peer_s": round(float(np.median(peer)), 4),
        "ratio": round(float(np.median(ratios)), 1),
        "spread": [round(float(ratios.min()), 1), round(float(ratios.max()), 1)],
        "agreement": float(max(abs(found[0].low - found[1].low), abs(found[0].high - found[1].high))),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
