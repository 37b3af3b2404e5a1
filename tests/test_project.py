"""Rules of the house: imports, sizes, the public API, recipes and the README."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import trabecula
from trabecula.cli import VERBS

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "trabecula"
FILES = sorted(SOURCE.rglob("*.py"))
VERB_FILES = {SOURCE / f"{verb}.py" for verb in VERBS} & set(FILES)
ENTRANCES = {SOURCE / name for name in ("cli.py", "show.py", "doctor.py", "__init__.py")}
LONGEST_FILE, LONGEST_FUNCTION, LONGEST_LOOP = 500, 60, 200
GROUND = (
    "config",
    "distributed",
    "errors",
    "files",
    "packages",
    "patient_ids",
    "progress",
    "random_numbers",
    "recipe",
    "spreadsheet",
    "stopping",
    "verbs",
)
"""Files that everything else may import; `run` is above the artifacts and below what starts verbs."""
ARTIFACTS = {
    "manifest.csv": "artifacts/manifest.py", "tasks.json": "artifacts/manifest.py",
    "missing.csv": "artifacts/manifest.py", "skipped.csv": "artifacts/manifest.py",
    "splits.csv": "artifacts/splits.py",
    "store.json": "artifacts/store.py", "index.csv": "artifacts/store.py",
    "rejected.csv": "artifacts/store.py", "images-": "artifacts/store.py",
    "audit.json": "artifacts/fidelity.py",
    "config.json": "artifacts/run_record.py", "provenance.json": "artifacts/run_record.py",
    "log.jsonl": "artifacts/run_record.py", "DONE": "artifacts/run_record.py",
    "encoder.json": "artifacts/encoder.py", "encoder.safetensors": "artifacts/encoder.py",
    "generator.json": "artifacts/generator.py", "generator.safetensors": "artifacts/generator.py",
    "classifier.json": "artifacts/classifier.py", "classifier.safetensors": "artifacts/classifier.py",
    "features.json": "artifacts/features.py", "features.npy": "artifacts/features.py",
    "predictions.csv": "artifacts/predictions.py", "choices.csv": "artifacts/predictions.py",
    "metrics.json": "artifacts/results.py", "comparisons.json": "artifacts/results.py",
    "curves.json": "artifacts/results.py", "flow.json": "artifacts/results.py",
    "critic.safetensors": "artifacts/encoder.py", "samples.npy": "artifacts/generator.py",
    "training.json": "artifacts/training.py", "fidelity.json": "artifacts/fidelity.py",
    "probe.json": "artifacts/classifier.py", "probe.safetensors": "artifacts/classifier.py",
    "trials.csv": "artifacts/search_result.py", "chosen.json": "artifacts/search_result.py",
    "spectrum.json": "artifacts/spectrum.py", "explain.json": "artifacts/explanation.py",
    "checkpoint.pt": "train/checkpoint.py", "durations.jsonl": "grid/time_left.py",
}  # fmt: skip
"""Each artifact's file name and the one module that knows it."""
HUGGING_FACE = {"nets/exported.py", "nets/published.py"}
"""Modules whose config.json is that of timm and transformers, not that of a run."""
TEXT_OF_THE_COMMAND_LINE = {"verbs.py"}
"""Help texts name artifacts for the reader; nothing there opens a file."""
SHARED_CLASS_NAMES = {"Config"}  # of verbs


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere in it, as `trabecula.x.y`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def node(module: str) -> str:
    """The folder of a module, or what a top-level file belongs to."""
    top = module.split(".")[1] if "." in module else ""
    if (SOURCE / top).is_dir():
        return top
    return "ground" if top in GROUND else top if top == "run" else "verbs"


def folder_imports() -> dict[str, set[str]]:
    """Folder -> folders that any file of it imports, also within functions.

    Top-level files are nodes of their own: a folder may import one as long as that leads to no cycle.
    """
    graph: dict[str, set[str]] = {}
    for path in FILES:
        module = ".".join(("trabecula", *path.relative_to(SOURCE).with_suffix("").parts))
        mine = node(module)
        if module == "trabecula.__init__":
            continue
        targets = {node(name) for name in imports(path) if name.startswith("trabecula.")}
        graph.setdefault(mine, set()).update(targets - {mine})
    return graph


def plain_strings(path: Path) -> list[str]:
    """String literals and the literal parts of f-strings, docstrings left out."""
    tree = ast.parse(path.read_text())
    docstrings = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    return [
        n.value
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in docstrings
    ]


def test_folders_form_no_cycle() -> None:
    graph = folder_imports()
    while leaves := {name for name, targets in graph.items() if not targets & graph.keys()}:
        graph = {name: targets for name, targets in graph.items() if name not in leaves}
    cycles = {name: sorted(targets & graph.keys()) for name, targets in graph.items()}
    assert cycles == {}


@pytest.mark.parametrize(("name", "home"), ARTIFACTS.items())
def test_each_artifact_has_one_home(name: str, home: str) -> None:
    """The name of its file is in one module; everything else imports it from there."""
    named = re.compile(rf"(?<![\w.-]){re.escape(name)}" + ("" if name.endswith("-") else r"(?![\w])"))
    exempt = TEXT_OF_THE_COMMAND_LINE | (HUGGING_FACE if name == "config.json" else set())
    found = {str(path.relative_to(SOURCE)) for path in FILES if any(map(named.search, plain_strings(path)))}
    assert found - exempt == {home}


def test_pretrain_names_no_method() -> None:
    from trabecula.objectives import TABLE

    path = SOURCE / "pretrain.py"
    tree = ast.parse(path.read_text())
    classes = {line[0].split(":")[1] for line in TABLE.values()}
    words = {word for text in plain_strings(path) for word in re.findall(r"\w+", text)}
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    names |= {name.split(".")[-1] for name in imports(path)}
    assert (words | names) & (TABLE.keys() | classes | {"isinstance"}) == set()


def test_the_grid_runs_cells_and_knows_nothing_else() -> None:
    verbs = {f"trabecula.{path.stem}" for path in VERB_FILES}
    foreign = tuple(f"{name}." for name in (*verbs, "trabecula.objectives", "trabecula.nets"))
    for path in (SOURCE / "grid").glob("*.py"):
        assert {name for name in imports(path) if f"{name}.".startswith(foreign)} == set(), path


def test_no_two_classes_have_one_name() -> None:
    homes: dict[str, list[str]] = {}
    for path in FILES:
        for n in ast.walk(ast.parse(path.read_text())):
            if isinstance(n, ast.ClassDef) and n.name not in SHARED_CLASS_NAMES:
                homes.setdefault(n.name, []).append(str(path.relative_to(SOURCE)))
    assert {name: its for name, its in homes.items() if len(its) > 1} == {}


def test_verbs_import_nouns_never_the_reverse() -> None:
    verbs = {f"trabecula.{path.stem}" for path in VERB_FILES}
    wrong = {
        str(path.relative_to(SOURCE)): imports(path) & verbs
        for path in FILES
        if path not in ENTRANCES and imports(path) & verbs
    }
    assert wrong == {}


def test_metrics_are_numpy_and_scipy_alone() -> None:
    """No torch, no tables, no files: of the package they import each other and the errors."""
    for path in (SOURCE / "metrics").glob("*.py"):
        found = imports(path)
        own = {name for name in found if name.split(".")[0] == "trabecula"}
        known = {"numpy", "scipy", *sys.stdlib_module_names}
        assert {name.split(".")[0] for name in found - own} <= known, path
        assert all(name.startswith(("trabecula.errors", "trabecula.metrics")) for name in own), path


def test_import_and_help_load_no_torch() -> None:
    code = (
        "import sys, trabecula\nfrom trabecula.cli import main\nsys.argv = ['trabecula', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'pandas', 'numpy', 'scipy') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip().splitlines()[-1] == "[]"


def test_files_and_functions_stay_small() -> None:
    long = [str(p.relative_to(ROOT)) for p in FILES if len(p.read_text().splitlines()) > LONGEST_FILE]
    assert long == []
    assert len((SOURCE / "train" / "loop.py").read_text().splitlines()) <= LONGEST_LOOP
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                assert node.end_lineno - node.lineno < LONGEST_FUNCTION, f"{path}: {node.name}"


def test_no_drawer_modules_and_no_unfinished_work() -> None:
    drawers = {"utils", "util", "common", "helpers", "misc", "manager", "base"}
    assert [p for p in FILES if p.stem in drawers] == []
    marks = re.compile(r"\b(TODO|FIXME|XXX)\b|placeholder|simplified for now")
    found = [
        f"{p.name}: {line.strip()}"
        for p in FILES
        for line in p.read_text().splitlines()
        if marks.search(line)
    ]
    assert found == []


def test_the_public_names_exist_and_are_listed_in_order() -> None:
    assert trabecula.__all__ == sorted(trabecula.__all__)
    for name in trabecula.__all__:
        assert getattr(trabecula, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        trabecula.nothing  # noqa: B018


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda p: p.stem)
def test_every_recipe_plans(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its keys, references and axes are right; data that is not here is stood in for by an empty folder."""
    from trabecula.recipe import read_recipe
    from trabecula.study import make_plan

    monkeypatch.chdir(tmp_path)  # paths in a recipe are relative to where the command is run
    stages = read_recipe(recipe).stages
    for file in re.findall(r"weights = \"([^\"]+)\"", text := recipe.read_text()):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    cohorts = [stage for stage in stages.values() if stage.verb == "cohort"]
    bare = [stage.name for stage in cohorts if not str(stage.values.get("root", "")).startswith("@")]
    assignments = [f"{name}.root={tmp_path}" for name in bare]
    assert len(make_plan(recipe, tmp_path / "study", assignments).cells) > 10
    assert f"recipes/{recipe.name}" in text.split("\n\n")[0] or "make" in text  # the header says the command


def readme_commands() -> list[str]:
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    return [line for block in blocks for line in block.splitlines() if line.startswith("trabecula ")]


@pytest.mark.parametrize("command", readme_commands(), ids=lambda c: c.split()[1])
def test_readme_commands_are_accepted(command: str, tmp_path: Path) -> None:
    """Each README command gets past its options and settings: it fails only for want of the input."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    words = [w.replace("runs/", f"{tmp_path}/") for w in shlex.split(command)][1:]
    done = subprocess.run(
        [sys.executable, "-m", "trabecula.cli", *words, "--dry-run"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode in (0, 2), done.stderr
    assert "unknown" not in done.stderr
    assert "Traceback" not in done.stderr
    if done.returncode == 2:
        assert "no such file or folder" in done.stderr


def test_the_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"^make ([\w-]+)", (ROOT / "README.md").read_text(), re.M)) <= targets


def test_links_of_the_readme_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / link).exists(), link
