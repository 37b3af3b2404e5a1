# ruff: noqa: E501 - the table quotes whole answers
"""A small study with everything that can be wrong beside it, and what each refused command answers."""

from __future__ import annotations

import json
import pickle
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import torch
from PIL import Image

from trabecula import cli
from trabecula.verbs import VERBS

GAN = (
    "pretrain --store store --splits split -s architecture=critic -s objective=wgan_gp "
    "-s settings.critic_steps=1 -s batch_size=2"
)
PROBE = "probe --features features --manifest cohort --splits split"
FINE = "finetune --encoder encoder --store store --manifest cohort --splits split -s images=4 -s batch_size=2"
SEARCH = "search --encoder encoder --store store --manifest cohort --splits split -s 'task=kl >= 2'"
EVALUATE = "evaluate --predictions probe --encoders encoder --manifest cohort --splits split"
WEIGHTS = "pretrain --store store -s architecture=torchvision:squeezenet1_0 -s stem=sum -s init=weights"

RESNET = "pretrain --store store -s architecture=torchvision:resnet18 -s stem=sum -s init=weights"
FIDELITY = "fidelity --generator encoder --splits split"

REFUSED = {
    # folders and tables
    "cohort --root nowhere": "nowhere: no such file or folder",
    "cohort --root empty": "empty: holds no file; --root is the folder of the images",
    "cohort --root films --table no_patient.csv": "no_patient.csv: no column 'patient_id' (columns: file, PatNr, kl), perhaps 'PatNr'; name it with -s columns.patient_id=COLUMN",
    "cohort --root films --table numbers.xlsx -s 'pattern={patient_id:4}{side:1}.png' -s spellings_differ=true": "they agree but for leading zeros: save the table with its ids as text",
    "cohort --root films --table damaged.xlsx": "damaged.xlsx: not a readable .xlsx file (File is not a zip file); save it again, or as CSV",
    "cohort --root films --table twice.csv": "twice.csv: path '0000L.png' is in rows 2, 3; they differ in 'kl' ('0', '2'); the table needs one row an image",
    "cohort --root films --table spelled.csv": "spelled.csv: one patient may stand under several spellings of the id: '0000' (row 2) and '0000.0' (row 3); write the id of one person in one way",
    "cohort --root films --table excel.csv": "excel.csv: rows 2, 3 have the patient id '9.00E+06', in scientific notation and rounded: they may be several patients",
    "cohort --root films --table headless.csv": "headless.csv: has no header: its first row is data (it names the file '0000L.png'); write a row with the columns' names above it",
    "cohort --root films --table unnamed.csv": "unnamed.csv: column 3 has no name in the header; write a name into its first cell, or remove the column",
    "split --manifest spellings.csv": "spellings.csv: one patient may stand under several spellings of the id: 'P1' (row 2) and 'p1' (row 3)",
    "split --manifest nines.csv -s 'task=kl >= 2'": "rule 'kl >= 2': 'kl' is 9 in 1 rows, far from its other values, and the rule would take it for a number",
    "cohort --root films -s 'pattern={patient_id:9}.png'": "films: no file matches the pattern '{patient_id:9}.png'; the first image is '0000L.png'",
    "prepare --manifest nowhere": "nowhere: no such file or folder",
    "prepare --manifest empty": "empty/manifest.csv: no such manifest; write one with `trabecula cohort`",
    "prepare --manifest same_ids.csv": "same_ids.csv: image_id 'a' is in rows 2, 3",
    "prepare --manifest patientless.csv": "patientless.csv: no column 'patient_id', did you mean 'patient'?",
    "prepare --manifest cohort -s readers.raster.max_pixels=9": "the first, ../images/100L_0.png: 32 x 32 pixels, more than the limit of 9",
    "embed --encoder empty --store store": "empty: no encoder there (encoder.json is missing); `trabecula pretrain` writes one",
    "embed --encoder encoder --store empty": "empty: no store (store.json); write one with `trabecula prepare`",
    "embed --encoder encoder --store cut": "cut/images-00000.npy: is cut short or damaged; prepare the store again",
    "embed --encoder encoder --store torn": "torn/index.csv: has 20 rows for 24 images; prepare the store again",
    "embed --encoder encoder --store damaged": "damaged/store.json: not valid JSON (Expecting value: line 1 column 1 (char 0)); write it again with `trabecula prepare`",
    # tasks and labels
    f"{PROBE} -s 'task=kll >= 2'": "task 'kll >= 2': no column 'kll' in the manifest, did you mean 'kl'?",
    f"{PROBE} -s 'task=kl => 2'": "rule 'kl => 2': 'kl => 2' is no comparison; write for example kl >= 2",
    f"{PROBE} -s 'task=kl >= 7'": "task 'kl >= 7': every labelled row is of class 0; a task needs two classes",
    f"{FINE} -s 'task=kl >= 7'": "task 'kl >= 7': every labelled row is of class 0; a task needs two classes",
    "probe --features features --manifest odd --splits split -s task=grade": "row 3 has",
    "probe --features features --manifest odd --splits split -s 'task=kl >= 2'": "rule 'kl >= 2': row 3 has no number in 'kl' ('x')",
    f"{PROBE} -s 'task=kl >= 2' -s 'fractions=[2]'": "fraction 2.0: must be above 0 and at most 1",
    "cohort --root films --table plain.csv -s 'tasks.oa.positive=KL >= 2'": "task 'oa': no column 'KL' in the manifest",
    "cohort --root films --table plain.csv -s tasks.f.kind=multilabel -s 'tasks.f.labels=[\"kl\"]' -s 'tasks.f.separator=\"|\"' -s 'tasks.f.classes=[\"Mass\"]'": "a finding outside the task (",
    "phantom -s kind=chest -s 'prevalence=[0,1,0,0,0]'": "prevalence and unlabelled are of knees and hips; for chests set chest.odds",
    # settings
    f"{PROBE} -s 'task=kl >= 2' -s fracton=0.1": "unknown key 'fracton', did you mean 'fractions'?",
    f"{GAN} -s settings.critic.lrr=1": "settings of wgan_gp: unknown key 'critic.lrr', did you mean 'lr'?",
    f"{GAN} -s objective=wgan_pg": "unknown objective 'wgan_pg', did you mean 'wgan_gp'?",
    f"{GAN} -s architecture=critc": "architecture 'critc' is not known, did you mean 'critic'?",
    f"{GAN} --device cuda:77": "device 'cuda:77':",
    f"{GAN} --device mps:3": "device 'mps:3': is not there; use cpu or auto",
    f"{GAN} --device gpu": "device 'gpu': unknown; use auto, cpu, cuda or cuda:1",
    "pretrain --store store --device cuda:77 -s architecture=critic": "device 'cuda:77':",
    f"{GAN} -s architecture=torchvision:squeezenet1_0": "wgan_gp pretrains the architecture 'critic', not 'torchvision:squeezenet1_0'",
    f"{GAN} -s objective=moco -s settings={{}}": "moco: queue 65536 is larger than the pool of <pool> images: the same image would be its own negative; these would do: -s settings.bn_rows=2 -s settings.queue=<pool>",
    f"{GAN} -s batch_size=64": "wgan_gp: a batch of 64 is larger than the pool of <pool> images, so the same image would be in it twice",
    f"{GAN} -s objective=vicreg -s settings={{}} -s batch_size=64": "vicreg: a batch of 64 is larger than the pool of <pool> images, so the same image would be in it twice",
    f"{GAN} -s objective=mae -s settings={{}}": "mae hides patches of an image from a plain vision transformer of timm's, and the architecture 'critic' is none; for 32 px add -s architecture=timm:vit_small_patch8_224",
    f"{GAN} --store same": "images of the pool that were checked are all the same image, so there is nothing to learn; look at the store's images, and at the intensity rule they were prepared with",
    "pretrain --store store40 -s architecture=critic": "size 40: the critic halves the side 5 times, so the size must be a multiple of 32 px; the nearest is 32",
    "prepare --manifest cohort -s size=big": "'size': Input should be a valid integer",
    "prepare --manifest cohort -s size": "-s size: write key=value, for example -s size=64",
    "prepare --manifest cohort --seed 3": "has no --seed; `trabecula show prepare` lists its settings",
    "prepare --manifset cohort": "No such option: --manifset",
    f"{FINE} --batch-size 8": "; batch_size is a setting: write -s batch_size=VALUE; see `trabecula finetune --help`",
    "pretrian --store store": "No such command 'pretrian'. Did you mean 'pretrain'?; see `trabecula --help`",
    f"{GAN} -s critic_steps=2": "trabecula pretrain: 'critic_steps' is a setting of wgan_gp; write settings.critic_steps in its place",
    f"{GAN} -s objective=[1]": "'objective': Input should be a valid string",
    f"{FINE} -s 'task=kl >= 2' -s lr=3e-4": "trabecula finetune: unknown key 'lr'; is it 'optimizer.lr'?",
    f"{GAN} -s settings.lr=3e-4": "settings of wgan_gp: unknown key 'lr'; is it 'critic.lr' or 'generator.lr'?",
    "prepare cohort": "unexpected extra argument(s) (cohort); inputs are given by name, each with its own flag, such as --store PATH; see `trabecula prepare --help`",
    "show stage": "'stage': no such file or folder, did you mean 'stage.toml'?",
    "show ./stagge.toml": "'./stagge.toml': no such file or folder, did you mean 'stage.toml'?",
    "show .": "is not a run folder; it has no config.json; there are ",
    "show moko": "'moko' is no verb, objective, run folder or recipe, did you mean 'moco'?",
    f"{FINE} -s task=kl -s head=critic": "head 'critic': a critic has one score, so it can separate two classes, not 3 classes; choose a binary task, or head = 'linear'",
    f"{FINE} -s 'task=kl >= 2' -s head=mlp": "'head.name': Input should be 'linear' or 'critic' (got 'mlp')",
    f"{FINE} -s 'task=kl >= 2' --chosen encoder": "encoder/chosen.json: no such file; it is written by `trabecula search`",
    SEARCH: "there is nothing to search; set a preset, or 'space'",
    f"{SEARCH} -s preset=tabel1": "'preset': Input should be 'none', 'table1', 'rate' or 'rajamohan' (got 'tabel1')",
    f"{SEARCH} -s 'space.optimzer.lr=[1]'": "space: 'optimzer.lr' is not a setting that can be searched, did you mean 'optimizer'?",
    f"{SEARCH} -s preset=rate -s settings.imgaes=9": "settings of the search: unknown key 'imgaes', did you mean 'images'?",
    f"{SEARCH} -s preset=rate -s storage=postgres": "storage 'postgres': ",
    # recipes
    "study nowhere.toml": "nowhere.toml: no such file",
    "study stagge.toml": "stagge.toml: no such file, did you mean 'stage.toml'?",
    "study stage": "stage: no such file, did you mean 'stage.toml'?",
    "study empty": "empty: is a folder; give a recipe",
    "study stage.toml -s num_patients=3": "-s num_patients=3: of which stage? write -s STAGE.num_patients=3, STAGE one of phantom",
    "study misplaced.toml": "[stages.pretrain]: 'critic_steps' is a setting of wgan_gp; write settings.critic_steps in its place",
    "study top.toml": "top.toml: unknown key 'titel', did you mean 'title'?",
    "study stage.toml": "[stages.phantom]: unknown key 'num_pateints', did you mean 'num_patients'?",
    "study nested.toml": "[stages.pretrain]: settings of wgan_gp: unknown key 'critic.lrr', did you mean 'lr'?",
    "study verb.toml": "unknown verb 'phantm', did you mean 'phantom'?",
    "study broken.toml": "broken.toml: not valid TOML: Invalid value (at line 2, column 8)",
    # files that do not belong together
    f"{WEIGHTS} --weights resnet18.pt": "its keys are those of torchvision:resnet18: set architecture = 'torchvision:resnet18'",
    "pretrain --store store -s architecture=critic -s init=weights --weights moved.safetensors": "moved.safetensors: an encoder that Trabecula wrote, without its card, which lists the patients that it has seen; give the folder that it comes from",
    f"{RESNET} --weights diverged.pt": "diverged.pt: 1 of 120 tensors have values that are not finite (conv1.weight): the training that wrote them has diverged, or the file is damaged",
    f"{RESNET} --weights distilled.pt": "distilled.pt: holds 2 networks that fit torchvision:resnet18, with the prefixes 'student.', 'teacher.'; choose one, such as weights_prefix = 'teacher.'",
    f"{RESNET} --weights resnet18.pt -s weights_prefix=teacher": "resnet18.pt: no key begins with weights_prefix 'teacher.'",
    "pretrain --store store -s architecture=critic -s init=package": "init 'package': the package has ImageNet weights of timm:tf_efficientnet_lite0, not of critic; set architecture = 'timm:tf_efficientnet_lite0', or init = weights with a file",
    f"{WEIGHTS} --weights evil.pt": "evil.pt: holds code or objects, not only tensors, and is not loaded, as that could run anything",
    f"{WEIGHTS} --weights evil.safetensors": "evil.safetensors: not a safetensors file, or cut short",
    "pretrain --store store --weights empty -s init=weights -s architecture=auto": "empty: no model's folder: it needs encoder.json (an export), or config.json",
    "pretrain --store store -s init=weights -s architecture=auto": "architecture 'auto' is that of a model's folder: set weights to the folder, or name a network",
    "pretrain --store store -s architecture=hf:facebook/dinov2-small": "names weights on the hub: set init = weights",
    "embed --encoder encoder --store unflipped": 'flip_side is "", wanted "R"; prepare these images with the settings of that store',
    "embed --encoder encoder --store store40": "prepared in another way than the images of encoder 'critic-wgan_gp': size is 40, wanted 32; prepare these images with the settings of that store",
    "predict --classifier probe --features leaky_features": "leaky_features: made with other weights than the features the probes learned from; embed these images with the same encoder, pool and region, from a store prepared alike",
    "predict --classifier fine --store unflipped": "unflipped: prepared in another way than the images of classifier ",
    f"{PROBE} -s 'task=kl >= 2' --splits strangers.csv": "no labelled patient is in the splits (the labels have '100', the splits 'X0'); are they of this manifest?",
    "probe --features features --manifest renamed --splits split -s 'task=kl >= 2'": "it belong to this manifest?",
    f"{EVALUATE} --splits strangers.csv": "the splits say none; give the splits the predictions were made with",
    f"{EVALUATE} --manifest renamed": "give that one, or predict again with this one",
    f"{EVALUATE} --encoders empty": "empty: no encoder there (encoder.json is missing); `trabecula pretrain` writes one",
    # samples and explanations
    "sample --generator empty": "empty: no generator there (generator.json is missing)",
    f"{FIDELITY} --store store40": "store40: images of 1 channels and 40 px, the generator in encoder makes 1 and 32 px; name the store that it learned from",
    f"{FIDELITY} --store store": "store: test has 4 images, so sets of 4; k = 5 needs at least 6; give the part more patients, or set a smaller nearest",
    "fidelity --generator leaky --store store --splits split": "is in test, and the generator has seen 1 of the held-out patients; give the splits that it was trained with",
    f"{FIDELITY} --store store -s nearest=1 -s extractor=inception-v3": "extractor 'inception-v3' needs a local weights file: set 'weights'; nothing is downloaded",
    f"{FIDELITY} --store store -s nearest=1 -s extractor=incepton": "extractor 'incepton' is not known; use random-conv, inception-v3, encoder, timm:NAME or torchvision:NAME",
    f"{FIDELITY} --store same -s nearest=1": "all 4 real images have the same features: nothing can be compared with them; look at the images, or take another extractor",
    "export --generator encoder --audit empty": "empty: no audit.json; name a folder that `trabecula fidelity` wrote",
    "export": "export: give encoder, classifier or generator, not none",
    "export --generator encoder": "generator and audit go together: a generator leaves only with its audit",
    "export --classifier forgotten": "forgotten: no classifier there (classifier.json is missing); this fine-tuning ran with keep = false; run it again with keep = true and another --out",
    "export --classifier store": "store: no classifier there (classifier.json is missing); `trabecula finetune` writes one",
    "export --encoder encoder --metrics empty": "empty/metrics.json: ",
    "explain --store store": "explain: nothing to do: give --classifier for Grad-CAM, --encoder with a critic and --splits for maximising",
    "explain --store store --encoder bare --splits split -s 'parts=[\"maximise\"]'": "bare: no critic there (critic.safetensors is missing); an adversarial `pretrain` writes one",
    "explain --store store --classifier fine -s 'image_ids=[\"nobody\"]'": "store: 1 of 1 images are not in the store (nobody); see its rejected.csv",
    "explain --store store --encoder encoder --manifest cohort --splits split -s task=kl -s 'parts=[\"units\"]'": "task 'kl' is multiclass: give one of classes in order, as 'kl >= 2'",
    "explain --store store --classifier fine --splits split -s layer=act9": "layer 'act9' of critic gives no maps or is not there, did you mean 'act4'?",
    "pretrain --store store --splits held_out_samples.csv -s architecture=critic -s objective=wgan_gp": "held_out_samples.csv: 'generator-0123456789ab' is a generator, not a patient, and is in test; generated images belong in train",
    # leaks
    "split --check --manifest cohort --splits split --encoders leaky": "1 leak: manifest row <row>: test patient <patient> was seen by the encoder leaky",
    "split --check --manifest cohort --splits two_parts.csv": "1 leak: manifest row <row>: patient <patient> is in test and in train",
    "evaluate --predictions leaky_probe --encoders leaky --manifest cohort --splits split": "encoder 'leaky' was pretrained on patient '<patient>' (manifest row <row>) of the test part; pretrain it again without validation and test patients",
    f"{EVALUATE} --splits leaky.csv": "predictions call patient '<patient>' (manifest row <row>) test, the splits say train; give the splits the predictions were made with",
    "evaluate --predictions trained_on_test --encoders encoder --manifest cohort --splits split": "no prediction for 2 of <tests> test images, of patient '<patient>' (manifest row <row>)",
    # --out
    "split --manifest cohort": "trabecula split: give --out FOLDER for the result",
    "split --manifest cohort --out thesis": "thesis: holds something else (thesis.docx); choose another --out",
    "split --manifest cohort --out model": "model: holds something else (config.json); choose another --out",
    "split --manifest cohort --out plain.csv": "plain.csv: is a file; --out needs a folder",
    "split --manifest cohort --out plain.csv/x": "plain.csv/x: lies in a file, not in a folder; choose another --out",
    "split --manifest cohort --out dangling": "dangling: no folder can be made there; choose another --out",
    "study stages.toml --out dangling": "dangling: no folder can be made there; choose another --out",
    "study stages.toml --out thesis": "thesis: holds something else (thesis.docx); choose another --out",
    "prepare --manifest cohort -s size=48 --out store": "store: holds a run of another config (size was 32, now 48); choose another --out, or remove the folder",
    "split --manifest cohort --out store": "store: holds a run of another config (verb was \"prepare\", now \"split\"); choose another --out, or remove the folder",
}  # fmt: skip


def build(root: Path) -> None:
    """Fill the folder, which holds images, cohort and store of a hospital and is the working one."""
    _good()
    _tables(root)
    _files(root)
    _leaks(root)


def words(command: str) -> list[str]:
    """A command's words; a single input that stands twice, in a line of the table too, is the later one."""
    given = shlex.split(command)
    single = {f"--{key}" for key in VERBS[given[0]].inputs} if given[0] in VERBS else set()
    again = {at for at, word in enumerate(given) if word in single and word in given[at + 1 :]}
    return [word for at, word in enumerate(given) if not {at, at - 1} & again]


def _do(command: str) -> None:
    """A command that must succeed."""
    cli.app(words(command), standalone_mode=False)


def _good() -> None:
    _do("split --manifest cohort --out split -s 'task=kl >= 2' -s train=0.6 -s val=0.2 -s test=0.2")
    _do(f"{GAN} --out encoder -s images=4")
    _do("embed --encoder encoder --store store --out features")
    _do(f"{PROBE} --out probe -s 'task=kl >= 2' -s fractions=[1] -s seeds=[0]")
    _do(f"{FINE} --out fine -s 'task=kl >= 2'")
    _do(f"{FINE} --out forgotten -s 'task=kl >= 2' -s keep=false")
    _do("prepare --manifest cohort --out unflipped -s size=32 -s flip_side=")
    _do("prepare --manifest cohort --out store40 -s size=40")
    shutil.copytree("store", "same")
    images = np.load("same/images-00000.npy")
    np.save("same/images-00000.npy", np.broadcast_to(images[:1], images.shape))


def _tables(root: Path) -> None:
    (root / "films").mkdir()
    noise = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(noise.integers(0, 256, (40, 40), dtype=np.uint8)).save(root / f"films/000{i}L.png")
    rows = [(f"000{i}L.png", f"000{i}", str(i % 5)) for i in range(6)]
    (root / "plain.csv").write_text("file,patient_id,kl\n" + "".join(f"{','.join(row)}\n" for row in rows))
    (root / "no_patient.csv").write_text("file,PatNr,kl\n" + "".join(f"{','.join(row)}\n" for row in rows))
    (root / "twice.csv").write_text("file,patient_id,kl\n0000L.png,0000,0\n0000L.png,0000,2\n")
    (root / "spelled.csv").write_text("file,patient_id\n0000L.png,0000\n0000R.png,0000.0\n")
    (root / "excel.csv").write_text("file,patient_id\n0000L.png,9.00E+06\n0000R.png,9.00E+06\n")
    (root / "headless.csv").write_text("0000L.png,0\n0000R.png,1\n")
    (root / "unnamed.csv").write_text("file,patient_id,,kl\n0000L.png,0000,1,2\n")
    (root / "spellings.csv").write_text("image_id,patient_id,path\na,P1,a.png\nb,p1,b.png\n")
    grades = (f"{k},{k},{k}.png,{kl}\n" for k, kl in enumerate("001239"))
    (root / "nines.csv").write_text("".join(["image_id,patient_id,path,kl\n", *grades]))
    (root / "same_ids.csv").write_text("image_id,patient_id,path\na,1,x.png\na,2,y.png\n")
    (root / "patientless.csv").write_text("image_id,patient,path\na,1,x.png\n")
    (root / "damaged.xlsx").write_bytes(b"no archive")
    sheet(root / "numbers.xlsx", [("patient_id", "kl"), *((i, i % 5) for i in range(6))])
    manifest = (root / "cohort/manifest.csv").read_text().splitlines()
    for name, edit in (("renamed", "z"), ("odd", "")):
        (root / name).mkdir()
        (root / name / "manifest.csv").write_text("\n".join([manifest[0], *(edit + r for r in manifest[1:])]))
    bad = manifest[2].rpartition(",")[0] + ",x"
    assert manifest[0].endswith(",kl")
    (root / "odd/manifest.csv").write_text("\n".join([*manifest[:2], bad, *manifest[3:]]))
    task = {"labels": ["kl"], "kind": "multiclass", "classes": ["0", "1", "2"]}
    (root / "odd/tasks.json").write_text(json.dumps({"grade": task}))


def sheet(path: Path, rows: list[tuple[Any, ...]]) -> None:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)


class Evil:
    """Unpickling it would write a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("unpickled"),))


def _files(root: Path) -> None:
    from torchvision import models

    for name in ("empty", "thesis", "model", "bare"):
        (root / name).mkdir()
    for name in ("encoder.json", "encoder.safetensors"):
        shutil.copy(root / "encoder" / name, root / "bare")
    held_out = (root / "split/splits.csv").read_text() + "generator-0123456789ab,test\n"
    (root / "held_out_samples.csv").write_text(held_out)
    (root / "thesis/thesis.docx").touch()
    (root / "dangling").symlink_to("nowhere")
    (root / "model/config.json").write_text('{"model_type": "bert"}')
    net = models.resnet18(weights=None).state_dict()
    torch.save(net, root / "resnet18.pt")
    torch.save({**net, "conv1.weight": net["conv1.weight"] / 0}, root / "diverged.pt")
    both = {f"{part}.{key}": value for part in ("student", "teacher") for key, value in net.items()}
    torch.save(both, root / "distilled.pt")
    shutil.copy(root / "encoder/encoder.safetensors", root / "moved.safetensors")
    for name in ("evil.pt", "evil.safetensors"):
        (root / name).write_bytes(pickle.dumps(Evil()))
    for name in ("cut", "torn", "damaged"):
        shutil.copytree(root / "store", root / name)
        (root / name / "config.json").unlink()
    array = (root / "store/images-00000.npy").read_bytes()
    (root / "cut/images-00000.npy").write_bytes(array[:-1000])
    index = (root / "store/index.csv").read_text().splitlines(keepends=True)
    (root / "torn/index.csv").write_text("".join(index[:-4]))
    (root / "damaged/store.json").write_text("")
    stages = "[stages.phantom]\nnum_patients = 2\nsize = 32\n"
    (root / "stages.toml").write_text(stages)
    (root / "top.toml").write_text("titel = 'x'\n" + stages)
    (root / "stage.toml").write_text(stages.replace("patients", "pateints"))
    (root / "verb.toml").write_text(stages + "[stages.other]\nverb = 'phantm'\n")
    (root / "broken.toml").write_text("[stages.phantom]\nsize = \n")
    (root / "misplaced.toml").write_text(
        '[stages.pretrain]\nstore = "store"\nobjective = "wgan_gp"\ncritic_steps = 2\n'
    )
    (root / "nested.toml").write_text(
        "[stages.pretrain]\nstore = 'store'\nobjective = 'wgan_gp'\nsettings.critic.lrr = 1\n"
    )


def a_test_patient(root: Path) -> str:
    """A patient of the test part."""
    lines = (root / "split/splits.csv").read_text().split()
    return next(line.partition(",")[0] for line in lines if line.endswith(",test"))


def _leaks(root: Path) -> None:
    """One test patient in a pretraining pool, and one in the training part of a probe."""
    splits, patient = (root / "split/splits.csv").read_text(), a_test_patient(root)
    (root / "leaky.csv").write_text(splits.replace(f"{patient},test", f"{patient},train"))
    (root / "two_parts.csv").write_text(f"{splits}{patient},train\n")
    (root / "strangers.csv").write_text("patient_id,split\nX0,train\nX1,val\nX2,test\n")
    _do(f"{GAN} --splits leaky.csv --out leaky -s arm=leaky -s images=4")
    _do("embed --encoder leaky --store store --out leaky_features")
    few = "-s 'task=kl >= 2' -s fractions=[1] -s seeds=[0]"
    _do(f"{PROBE} --features leaky_features --out leaky_probe {few}")
    _do(f"{PROBE} --splits leaky.csv --out trained_on_test {few}")
