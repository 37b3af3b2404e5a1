"""The command line: `trabecula VERB --out FOLDER`, the same few flags on every verb.

Nothing heavy is imported until a verb runs, so that `trabecula --help` answers at once: the verbs and
their inputs stand in a table (`verbs.py`), which a test holds against each verb's own `Config`.
"""

from __future__ import annotations

import errno
import inspect
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trabecula import __version__
from trabecula.errors import InputError, TrabeculaError, disk_full
from trabecula.stopping import Stopped, as_ctrl_c
from trabecula.verbs import INPUTS, VERBS, Verb

if TYPE_CHECKING:
    from trabecula.config import Record
    from trabecula.grid.cells import Plan


app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
    help="Image encoders from many medical images and few labels, and whether the pretraining paid. "
    "The verbs below stand in the order in which they run; each writes one folder.",
)  # fmt: skip

_SET = typer.Option("--set", "-s", metavar="KEY=VALUE", help="One setting; may be repeated.")
Assignments = Annotated[list[str] | None, _SET]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done; do nothing.")]
_OTHER_THREADS = "Go on with a run begun with another number of threads; its last digits may differ."
OtherThreads = Annotated[bool, typer.Option("--other-threads", help=_OTHER_THREADS)]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Processes or threads at a time.")]

_NAME_ERRORS = (errno.ENOTDIR, errno.ENAMETOOLONG)
_DRIVE_ERRORS = (errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV, errno.ENXIO)


def main() -> None:
    """The entry point."""
    as_ctrl_c()
    with one_line_errors():
        code = app(standalone_mode=False)
        sys.stdout.flush()  # here, where a reader that has seen enough is answered
        sys.exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"trabecula {__version__}")
        raise typer.Exit


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Errors that the user can fix become one line and an exit code, never a traceback."""
    try:
        yield
    except TrabeculaError as error:
        _stop(f"error: {error}", error.exit_code)
    except KeyboardInterrupt as stop:
        place = f" from {stop}" if isinstance(stop, Stopped) else ""
        _stop(f"stopped; run the same command again to go on{place}", 130)
    except PermissionError as error:
        _stop(f"error: {error.filename}: not allowed; choose another folder or change its rights", 2)
    except BrokenPipeError:  # the program that reads the output has stopped reading
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _os(error)
    except MemoryError as error:
        _stop(f"error: out of memory ({error or 'no detail'}); lower size, batch_size or --workers", 1)
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of typer, whose classes are private
            _usage(error)
        if type(error).__name__ != "OutOfMemoryError":  # torch's own, which is not imported here
            raise
        _stop("error: the device is out of memory; lower batch_size, or raise accumulate", 1)


def _os(error: OSError) -> None:
    """Failures of the machine; any other operating-system error is a defect of Trabecula."""
    place = error.filename or "the output"
    if full := disk_full(error, place):
        _stop(f"error: {full}", full.exit_code)
    if error.errno in _NAME_ERRORS:
        _stop(f"error: {place}: {error.strerror}; choose another name", 2)
    if error.errno in _DRIVE_ERRORS:
        _stop(f"error: {place}: {error.strerror}; check the drive and run the same command again", 1)
    raise error


def _usage(error: Any) -> None:
    """A mistyped verb or option in one line; bare `trabecula` shows the help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        sys.exit(error.exit_code)
    context = getattr(error, "ctx", None)
    path = f"trabecula {context.info_name}" if context and context.parent else "trabecula"
    message = error.format_message().rstrip(".")
    if message.startswith("Got unexpected extra argument") and context and context.info_name in VERBS:
        message += "; inputs are given by name, each with its own flag, such as --store PATH"
    key = getattr(error, "option_name", "").lstrip("-").replace("-", "_")
    if key and context and context.info_name in VERBS:
        from trabecula.run import verb_module

        if key in verb_module(context.info_name).Config.model_fields:
            message = f"{message.partition(' (')[0]}; {key} is a setting: write -s {key}=VALUE"
    _stop(f"error: {message}; see `{path} --help`", error.exit_code)


def _stop(line: str, code: int) -> None:
    sys.stdout.flush()
    print(" ".join(line.splitlines()), file=sys.stderr, flush=True)
    sys.exit(code)


_VERSION = typer.Option("--version", is_eager=True, callback=_version, help="Show the version and stop.")


@app.callback()
def _options(version: Annotated[bool, _VERSION] = False) -> None:
    pass


def run_verb(name: str, given: dict[str, Any]) -> None:
    """One verb from the command line: settings, then a run folder, then its summary on stdout."""
    with one_line_errors():
        workers, out = given["workers"], given["out"]
        wished = os.environ.get("OMP_NUM_THREADS", "")
        threads = int(wished) if wished.isdecimal() and int(wished) else cores()
        from trabecula.artifacts.run_record import DONE_FILE, is_done
        from trabecula.config import build
        from trabecula.run import execute, verb_module

        os.environ["OMP_NUM_THREADS"] = str(workers or threads)  # before torch is imported
        cls: type[Record] = verb_module(name).Config
        if workers and "workers" not in cls.model_fields:
            threads = workers
        config = build(cls, _values(name, cls, given), f"trabecula {name}")
        if given["dry_run"]:
            _show_dry_run(name, config, out)
        elif out is None and given.get("check"):
            with tempfile.TemporaryDirectory() as folder:
                print(execute(name, config, Path(folder), threads))
        elif out is None:
            raise InputError(f"trabecula {name}: give --out FOLDER for the result")
        else:
            already = f"{DONE_FILE} already: " if is_done(out) else ""
            print(already + execute(name, config, out, threads, other_threads=given["other_threads"]))


def _values(name: str, cls: type[Record], given: dict[str, Any]) -> dict[str, Any]:
    """Settings from --config, then the options, then -s."""
    from trabecula.config import assign, read_toml

    values = read_toml(given["config"]) if given["config"] else {}
    for key in VERBS[name].inputs:
        if len(given[key] or ()) > 1:
            rest = {"store": "also", "splits": "also_splits"}.get(key, "")
            more = f"; give the others with {_flag(rest)}" if rest in VERBS[name].lists else ""
            raise InputError(f"trabecula {name}: {_flag(key)} takes one path{more}")
        if given[key]:
            values[key] = given[key][0]
    values |= {key: given[key] for key in VERBS[name].lists if given[key]}
    for key in ("seed", "device", "workers"):
        if given[key] is not None and key in cls.model_fields:
            values[key] = given[key]
        elif given[key] is not None and key != "workers":
            raise InputError(f"trabecula {name}: has no --{key}; `trabecula show {name}` lists its settings")
    values |= {"check": True} if given.get("check") else {}
    return assign(values, given["assignments"] or [])


def cores() -> int:
    """Physical cores that this process may use; half the logical ones where they come in pairs."""
    try:
        usable = os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
    siblings = {_siblings(cpu) for cpu in usable}
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        allowed = max(1, int(quota) // int(period))
    except (OSError, ValueError):  # no container, or no limit ("max")
        allowed = len(usable)
    return max(1, min(len(siblings), allowed))


def _siblings(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _show_dry_run(name: str, config: Record, out: Path | None) -> None:
    from trabecula.artifacts.run_record import DONE_FILE, is_done
    from trabecula.config import dump, inputs, to_toml

    print(f"# trabecula {name}: its settings; nothing is run\n{to_toml(dump(config)).strip()}")
    print("\n# reads")
    read = [(key, path) for key, paths in inputs(config).items() for path in paths]
    missing = [path for _, path in read if not path.exists()]
    for key, path in read:
        print(f"#   {key}: {path}" + ("   (not there)" if path in missing else ""))
    state = "give --out FOLDER"
    if out is not None:
        found = "an unfinished run, resumed" if out.is_dir() else "a file" if out.exists() else "a new folder"
        state = f"{out}   ({f'{DONE_FILE} already' if is_done(out) else found})"
    print(f"# writes\n#   {state}")
    if missing:
        raise InputError(f"{missing[0]}: no such file or folder")


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _option(kind: Any, flag: str, text: str, metavar: str | None = None) -> Any:
    return Annotated[kind | None, typer.Option(flag, metavar=metavar, help=text)]


def _command(name: str, verb: Verb) -> Callable[..., None]:
    """The function typer reads the options from: built from the table, so that they can't drift."""
    # lists here too: of a single option given twice the parser would keep the last without a word
    options = {key: _option(list[Path], _flag(key), INPUTS[key], "PATH") for key in verb.inputs}
    for key in verb.lists:
        options[key] = _option(list[Path], _flag(key), INPUTS[key] + "; may be repeated.", "PATH")
    if verb.check:
        help_text = "Look for leaks; exit code 2 if there are any."
        options["check"] = Annotated[bool, typer.Option("--check", help=help_text)]
    options |= {
        "out": _option(Path, "--out", "The run folder.", "FOLDER"),
        "config": _option(Path, "--config", "Settings of this verb.", "FILE.toml"),
        "assignments": Assignments,
        "seed": _option(int, "--seed", "Seed of everything random."),
        "device": _option(str, "--device", "cpu, cuda, cuda:1 or auto."),
        "workers": Workers,
        "other_threads": OtherThreads,
        "dry_run": DryRun,
    }

    def command(**given: Any) -> None:
        run_verb(name, given)

    keyword = inspect.Parameter.KEYWORD_ONLY
    defaults = dict.fromkeys(("check", "dry_run", "other_threads"), False)
    parameters = [
        inspect.Parameter(key, keyword, default=defaults.get(key), annotation=kind)
        for key, kind in options.items()
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = options
    command.__doc__ = f"{verb.says}\n\nAll settings: trabecula show {name}"
    return command


for _name, _verb in VERBS.items():
    app.command(_name, epilog=f"Example: trabecula {_name} {_verb.example}")(_command(_name, _verb))


@app.command(epilog="Example: trabecula study recipes/folder.toml --out runs/mine --workers 4")
def study(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.toml", help="Stages and axes.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="FOLDER", help="The study's folder.")] = None,
    assignments: Assignments = None,
    workers: Workers = None,
    dry_run: DryRun = False,
) -> None:
    """Run a recipe's whole grid of verbs, or what is missing of it."""
    with one_line_errors():
        from trabecula.study import few_seeds, make_plan, run_study

        if out is None and not dry_run:
            raise InputError("trabecula study: give --out FOLDER for the cells and the report")
        folder = out or Path("study")
        plan = make_plan(recipe, folder, assignments or [])
        if dry_run:
            _show_plan(plan, folder)
        for text in few_seeds(plan):
            print(f"few seeds: {text}", flush=True)
        if not dry_run:
            print(run_study(plan, folder, workers or max(1, cores() // plan.recipe.threads)))


def _show_plan(plan: Plan, folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from trabecula.recipe import not_run_lines
    from trabecula.study import remaining_work, summarise

    table = Table("stage", "verb", "axes", "cells", "done", title=plan.recipe.title or None)
    for row in summarise(plan):
        table.add_row(*map(str, row))
    table.add_section()
    table.add_row("all", "", "", str(len(plan.cells)), str(sum(cell.done for cell in plan.cells)))
    Console().print(table)
    if lines := remaining_work(plan, folder):
        print("to do:\n  " + "\n  ".join(lines))
    for text in not_run_lines(plan.recipe.values, plan.recipe.not_run):
        print(f"not run: {text}")


_SETTINGS = typer.Option("--settings", help="Of a run folder: its settings and raw cards too.")


@app.command(epilog="Example: trabecula show pretrain    trabecula show moco    trabecula show runs/moco")
def show(
    name: Annotated[str, typer.Argument(help="A verb, an objective, a run folder or a recipe.")] = "",
    settings: Annotated[bool, _SETTINGS] = False,
) -> None:
    """Show a verb's or objective's settings, or what is in a run folder or recipe."""
    with one_line_errors():
        from trabecula.show import print_names, print_subject

        print_subject(name, settings) if name else print_names()


@app.command(epilog="Example: trabecula doctor --out runs")
def doctor(
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The folder of the runs.")] = Path("."),
) -> None:
    """Say what this machine has: versions, devices, disk, rights."""
    with one_line_errors():
        from trabecula.doctor import examine

        examine(out)


if __name__ == "__main__":
    main()
