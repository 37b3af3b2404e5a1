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
LONGEST_FILE, LONGEST_FUNCTION, LONGEST_LOOP = 400, 60, 200


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere in it, as `trabecula.x.y`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_verbs_import_nouns_never_the_reverse() -> None:
    verbs = {f"trabecula.{path.stem}" for path in VERB_FILES}
    wrong = {
        str(path.relative_to(SOURCE)): imports(path) & verbs
        for path in FILES
        if path not in ENTRANCES and imports(path) & verbs
    }
    assert wrong == {}


def test_metrics_need_neither_torch_nor_scikit_learn() -> None:
    heavy = {"torch", "sklearn", "timm", "torchvision"}
    for path in (SOURCE / "metrics").glob("*.py"):
        assert {name.split(".")[0] for name in imports(path)} & heavy == set(), path


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
