"""The verbs as the command line shows them: what each does, an example, its inputs.

A test holds this table against the verbs' own `Config`; nothing heavy is imported for it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verb:
    """A verb as `--help` shows it."""

    says: str
    example: str  # what follows the verb's name
    inputs: tuple[str, ...] = ()  # fields of its Config typed Path
    lists: tuple[str, ...] = ()  # fields typed tuple[Path, ...]: the option may be repeated
    check: bool = False


VERBS = {
    "phantom": Verb(
        "Draw a synthetic hospital: images and tables with known truth.",
        "--out data/phantom -s num_patients=300",
    ),
    "cohort": Verb(
        "Bring a data set's own export into one manifest.csv.",
        "--root data/phantom/images --table data/phantom/table.csv --out runs/cohort",
        ("root", "table"),
    ),
    "split": Verb(
        "Divide patients into train, val and test, or check a division for leaks (--check).",
        "--manifest runs/cohort --out runs/split -s task='kl >= 2'",
        ("manifest", "existing", "splits"),
        ("encoders", "pools"),
        check=True,
    ),
    "prepare": Verb(
        "Decode, crop and resize the images once, into a store.",
        "--manifest runs/cohort --out runs/store -s size=224 --workers 8",
        ("manifest",),
    ),
    "pretrain": Verb(
        "Learn an encoder from a store without labels.",
        "--store runs/store --splits runs/split --out runs/moco -s objective=moco",
        ("store", "splits", "weights", "manifest"),
        ("also", "also_splits"),
    ),
    "sample": Verb(
        "Draw images from a generator into a store: samples, or walks between them.",
        "--generator runs/gan --out runs/samples -s num=1000",
        ("generator",),
    ),
    "fidelity": Verb(
        "Measure how real a generator's images are over its training, and whether it copies.",
        "--generator runs/gan --store runs/store --splits runs/split --out runs/fidelity",
        ("generator", "store", "splits", "weights"),
    ),
    "export": Verb(
        "Write a model that may leave: for timm, torchvision, ONNX and the hub, and no patient in it.",
        "--encoder runs/moco --metrics runs/results --out runs/export",
        ("encoder", "classifier", "generator", "audit", "metrics"),
    ),
    "embed": Verb(
        "Turn a store into features with an encoder.",
        "--encoder runs/moco --store runs/store --out runs/features",
        ("encoder", "store"),
    ),
    "probe": Verb(
        "Fit linear classifiers on features with few labels.",
        "--features runs/features --manifest runs/cohort --splits runs/split --out runs/probe "
        "-s 'task=\"kl >= 2\"'",
        ("features", "manifest", "splits"),
    ),
    "search": Verb(
        "Choose settings of fine-tuning on validation, by many trials.",
        "--encoder runs/moco --store runs/store --manifest runs/cohort --splits runs/split --out runs/search "
        "-s 'task=\"kl >= 2\"' -s preset=rate",
        ("encoder", "store", "manifest", "splits"),
    ),
    "finetune": Verb(
        "Train encoder and classifier together on few labels.",
        "--encoder runs/moco --store runs/store --manifest runs/cohort "
        "--splits runs/split --out runs/fine -s 'task=\"kl >= 2\"'",
        ("encoder", "store", "manifest", "splits", "chosen"),
    ),
    "predict": Verb(
        "Apply trained classifiers to other images.",
        "--classifier runs/fine --store runs/other --out runs/predicted",
        ("classifier", "store", "features", "splits"),
    ),
    "spectrum": Verb(
        "Say which grades a pool without labels holds, by a proxy classifier's predictions.",
        "--predictions runs/predicted --manifest runs/cohort --validation runs/fine --out runs/spectrum",
        ("manifest", "labels"),
        ("predictions", "validation"),
    ),
    "explain": Verb(
        "Show what a network sees: Grad-CAM, the image a critic likes best, units that know the label.",
        "--classifier runs/fine --store runs/store --splits runs/split --out runs/seen",
        ("store", "classifier", "encoder", "manifest", "splits"),
    ),
    "evaluate": Verb(
        "Join predictions with the truth: metrics, intervals, comparisons.",
        "--predictions runs/probe --predictions runs/fine --manifest runs/cohort "
        "--splits runs/split --encoders runs/moco --out runs/results",
        ("manifest", "splits", "store"),
        ("predictions", "encoders"),
    ),
    "report": Verb(
        "Write the report: report.html, tables, figures.",
        "--results runs/results --manifest runs/cohort --out runs/report",
        ("results", "manifest", "store"),
        ("runs", "samples", "fidelity", "explained", "searches", "spectra"),
    ),
}

INPUTS = {
    "also": "More stores to learn from",
    "also_splits": "More splits whose val and test patients stay out",
    "audit": "A folder written by fidelity.",
    "chosen": "A folder written by search.",
    "classifier": "A folder written by finetune or probe.",
    "encoder": "A folder written by pretrain.",
    "encoders": "Folders written by pretrain",
    "explained": "Folders written by explain",
    "existing": "Splits whose patients never move.",
    "features": "A folder written by embed.",
    "fidelity": "Folders written by fidelity",
    "generator": "A folder with a generator, written by pretrain.",
    "labels": "The labelled images' manifest, where it is another.",
    "manifest": "manifest.csv, or its folder (written by cohort).",
    "metrics": "metrics.json, or its folder (written by evaluate).",
    "pools": "Manifests, stores or tables that pretraining reads",
    "predictions": "Folders written by probe, finetune or predict, for evaluate also another tool's CSV",
    "results": "A folder written by evaluate.",
    "root": "The folder that holds the images.",
    "runs": "The run folders behind the results",
    "samples": "A generator's samples.",
    "searches": "Folders written by search",
    "spectra": "Folders written by spectrum",
    "splits": "splits.csv, or its folder (written by split).",
    "store": "A folder written by prepare.",
    "table": "A table with a row per image, or per patient and side.",
    "validation": "Folders of the finetune or probe that predicted",
    "weights": "A weights file, or an encoder's folder.",
}
