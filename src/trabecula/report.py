"""Results -> one self-contained report.html and tables (csv, md, tex): `trabecula report`.

Reads what `evaluate` wrote and computes no statistic. The page needs no network, shows no patient
id, and is the same bytes for the same inputs.

    report.html
    tables/results.*  comparisons.*  label_multipliers.*  fractions.*     each as csv, md, tex
    tables/pools.md, .tex              where arms differ in their pretraining pool alone
    tables/shortcuts.md, .tex          where a probe asked for the source, say, or saw the corners alone
    tables/snapshots.md, .tex          where snapshots were evaluated: their scores on validation images
    tables/hip_gan.*                   with paper = "hip-gan": the paper's tables and ours, as md, tex
    tables/knee_ssl.*                  with paper = "knee-ssl": the same, as csv, md, tex
    figures/*.svg                      every figure of the page, with its legend
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from trabecula.artifacts.encoder import has_encoder, read_encoder_card
from trabecula.config import NoEffectOnResult, Record
from trabecula.figures import plots as figures
from trabecula.figures.charts import Chart, chart_file
from trabecula.figures.drawings import figure_files, free_name, style_sheet
from trabecula.run import Run, identity
from trabecula.sections import formats, tables, verdict, wording
from trabecula.sections.flow import read_cohort, task_flows
from trabecula.sections.generators import Explained, Generator, read_explained, read_generators
from trabecula.sections.papers import Beside, hip_gan, knee_ssl
from trabecula.sections.pretraining import read_pretrainings
from trabecula.sections.pretraining_pools import Pools, read_pools
from trabecula.sections.provenance import read_runs, without_paths
from trabecula.sections.results import Panel, Results, read_results
from trabecula.sections.shortcuts import Shortcuts, read_shortcuts
from trabecula.sections.snapshots import snapshot_curves, snapshot_table


class Config(Record):
    results: Path
    """`evaluate`'s folder: metrics.json, comparisons.json, curves.json, flow.json."""
    manifest: Path
    """manifest.csv, or its folder; counted for the cohort flow."""
    store: Path | None = None
    """The store of the study's images, for the sample grid and the rejected files."""
    runs: tuple[Path, ...] = ()
    """Every run folder behind the results, for the provenance."""
    samples: tuple[Path, ...] = ()
    """Generators' samples: folders that `pretrain` wrote (those without a generator are passed over),
    stores, or .npy files."""
    fidelity: tuple[Path, ...] = ()
    """Folders that `fidelity` wrote: a generator's distances over training, its critic's overfit gap."""
    explained: tuple[Path, ...] = ()
    """Folders that `explain` wrote: what networks see."""
    searches: tuple[Path, ...] = ()
    """Folders that `search` wrote, for a paper's tables of what was searched."""
    spectra: tuple[Path, ...] = ()
    """Folders with a spectrum.json: grades that a classifier predicts for a pool, for knee-ssl's figure 5."""
    paper: Literal["", "hip-gan", "knee-ssl"] = ""
    """A paper whose figures and tables stand beside this study's: hip-gan is den Boer 2025, knee-ssl is
    Rajamohan et al. 2026."""
    title: str = "Did the pretraining pay?"
    """The page's heading."""
    command: Annotated[str, NoEffectOnResult()] = ""
    """The command that made the study, shown in the provenance; absolute paths are shortened."""
    not_run: dict[str, str] = {}
    """What the study left out, and why."""
    shortcuts: tuple[str, ...] = ("cohort",)
    """Tasks that ask for no diagnosis, such as the source of an image or its side. What finds them, and what
    finds anything in the corners of images alone, stands in a section of its own, not in the verdict."""
    num_pictures: int = 24
    """Images in the sample grid. Without a store, or with 0 here, reconstructions are left out too."""


def run(config: Config, out: Run) -> str:
    """Write the page and the tables.

    Raises:
        InputError: a file is missing or is not what `evaluate`, `prepare` or `cohort` write.
    """
    results = read_results(config.results, config.shortcuts)
    drawn = [_figures(results, panel) for panel in results.panels]
    looked = Looked(read_generators(config.fidelity), read_explained(config.explained))
    paper = _paper(results, config, looked)
    probed = Probed(read_pools(results), read_shortcuts(results))
    page = render(results, config, drawn, looked, probed, paper)
    (out / "tables").mkdir(exist_ok=True)
    for name, content in (table_files(results) | probed.files | (paper.files if paper else {})).items():
        out.write(f"tables/{name}", content)
    (out / "figures").mkdir(exist_ok=True)
    drawings = figure_files(drawn, wording.arm_names(results))
    for chart in [*probed.charts, *looked.charts, *(paper.charts if paper else ())]:
        drawings[f"{free_name(f'{chart.heading} {chart.title}', drawings)}.svg"] = chart_file(chart)
    for name, content in drawings.items():
        out.write(f"figures/{name}", content)
    out.write("report.html", page)
    return f"report.html: {verdict.in_a_line(results)}"


def _left_out(not_run: dict[str, str]) -> dict[str, str]:
    """Why -> who, each reason once: an arm whose weights are missing takes its control with it."""
    who: dict[str, list[str]] = {}
    for name, reason in not_run.items():
        who.setdefault(without_paths(reason), []).append(name)
    return {reason: " and ".join(names) for reason, names in who.items()}


def table_files(results: Results) -> dict[str, str]:
    """File name -> content of every table; CSV carries the raw rows."""
    panels = results.panels
    shown = {
        "results": [t for panel in panels for t in tables.results_tables(results, panel)],
        "comparisons": [
            table
            for panel in panels
            for metric in results.metric_names(panel)
            if (table := tables.comparison_table(results, panel, metric)).rows
        ],
        "label_multipliers": [t for panel in panels if (t := tables.multiplier_table(results, panel)).rows],
        "fractions": [
            table for task in results.flow["tasks"] if (table := tables.fraction_table(results, task)).rows
        ],
    }
    raw = {
        "results": results.rows,
        "comparisons": results.pairs,
        "label_multipliers": results.comparisons["label_multipliers"],
        "fractions": results.flow["subsets"],
    }
    files = {}
    for name, drawn in shown.items():
        files[f"{name}.csv"] = formats.to_csv(raw[name])
        files[f"{name}.md"] = formats.to_markdown(drawn)
        files[f"{name}.tex"] = formats.to_latex(drawn)
    swept = [table for panel in panels for table in _swept(results, panel)]
    if swept:
        files["snapshots.md"], files["snapshots.tex"] = formats.to_markdown(swept), formats.to_latex(swept)
    return files


def _swept(results: Results, panel: Panel) -> list[formats.Table]:
    found = (snapshot_table(results, panel, metric) for metric in results.metric_names(panel))
    return [table for table in found if table.rows]


@dataclass(frozen=True)
class Looked:
    """What was seen in generators and networks."""

    generators: list[Generator]
    explained: list[Explained]

    @property
    def charts(self) -> list[Chart]:
        of_generators = [chart for one in self.generators for chart in one.charts]
        return of_generators + [chart for one in self.explained for chart in one.charts]


@dataclass(frozen=True)
class Probed:
    """What the pool does to a score, and what could be gone by that is no disease."""

    pools: list[Pools]
    shortcuts: Shortcuts | None

    @property
    def charts(self) -> list[Chart]:
        of_pools = [chart for one in self.pools for chart in one.charts]
        return of_pools + (self.shortcuts.charts if self.shortcuts else [])

    @property
    def files(self) -> dict[str, str]:
        """Their tables by file name."""
        shown = {
            "pools": [one.table for one in self.pools],
            "shortcuts": [self.shortcuts.table] if self.shortcuts else [],
        }
        files = {f"{name}.md": formats.to_markdown(drawn) for name, drawn in shown.items() if drawn}
        return files | {f"{name}.tex": formats.to_latex(drawn) for name, drawn in shown.items() if drawn}


def _paper(results: Results, config: Config, looked: Looked) -> Beside | None:
    """The section of the paper that is asked for: its figures and tables and ours."""
    if config.paper == "hip-gan":
        return _hip_gan(results, config, looked)
    if config.paper == "knee-ssl":
        section = knee_ssl.knee_ssl_section(
            results, config.runs, config.store, config.spectra, config.searches
        )
        return Beside("Knee SSL", "knee_ssl", section.tables, section, section.charts, section.rows)
    return None


def _hip_gan(results: Results, config: Config, looked: Looked) -> Beside:
    from trabecula.figures.montage import montage

    searches = hip_gan.read_searches(config.searches)
    samples = next((images for _, images in _samples(config, 25)), [])
    reals = _store_images(config, 25)
    tables = hip_gan.hip_gan_tables(results, looked.generators, looked.explained, searches)
    content = {
        "tables": tables,
        "samples": montage(samples, 5) if samples else "",
        "reals": montage(reals, 5) if reals else "",
        "roc": [group for panel in results.panels for group in hip_gan.roc(results, panel)],
        "facts": hip_gan,
    }
    return Beside("Hip GAN", "hip_gan", [table for table in tables.values() if table.rows], content)


def render(
    results: Results,
    config: Config,
    drawn: list[dict[str, Any]],
    looked: Looked,
    probed: Probed,
    paper: Beside | None,
) -> str:
    """The page, with the figures drawn for each panel of the results."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trabecula", "sections"),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    context = {
        "title": config.title,
        "css": style_sheet("figure.css") + style_sheet("page.css"),
        "level": results.level,
        "one_in": round(2 / (1 - results.metrics["level"])),
        "alpha": f"{results.metrics['alpha']:g}",
        "resamples": wording.count(results.metrics.get("num_resamples")),
        "results": results,
        "names": wording.arm_names(results),
        "tally": verdict.tally(results),
        "num_compared": len(verdict.against_random(results)),
        "why_none": verdict.why_none(results),
        "left_out": _left_out(config.not_run),
        "verdicts": verdict.verdicts(results),
        "sections": [_section(results, panel) for panel in results.panels],
        "figures": drawn,
        "pools": probed.pools,
        "shortcuts": probed.shortcuts,
        "generators": looked.generators,
        "explained": looked.explained,
        "paper": paper,
        "pictures": _pictures(config),
        "cohort": read_cohort(config.manifest, config.store),
        "flows": task_flows(results),
        "pretrainings": read_pretrainings(config.runs, bool(config.store and config.num_pictures)),
        "upper_bounds": verdict.upper_bounds(results),
        "few_seeds": verdict.few_seeds(results),
        "provenance": read_runs(config.runs),
        "inputs": _identities(config),
        "seeds": _seeds(results),
        "command": without_paths(config.command),
        "w": wording,
    }
    return environment.get_template("page.html.j2").render(context)


def _section(results: Results, panel: Panel) -> dict[str, Any]:
    """Tables of one task in one mode."""
    compared = []
    for metric in results.metric_names(panel):
        pairs = results.comparisons_of(panel, metric)
        if not pairs:
            continue
        tested = [p for p in pairs if wording.claim_of(p)]
        ends = [abs(p[k]) for p in tested for k in ("difference", "low", "high") if wording.present(p[k])]
        reach = max(ends, default=0.0) or 1.0
        table, grid = tables.comparison_grid(results, panel, metric)
        shortcut = results.is_shortcut(panel)
        marks = [[_mark(results, pair, reach, shortcut) for pair in line] for line in grid]
        bars = any(mark and mark["bar"] for line in marks for mark in line)
        reach_shown = wording.number(reach) if bars else ""
        compared.append({"table": table, "marks": marks, "reach": reach_shown, "tested": bool(tested)})
    metric_tables = tables.results_tables(results, panel)
    return {
        "name": f"{panel.task}, {wording.mode_name(panel.mode)}",
        "shortcut": results.is_shortcut(panel),
        "headline": metric_tables[0],
        "others": metric_tables[1:],
        "groups": tables.other_groups(results, panel),
        "comparisons": compared,
        "multipliers": tables.multiplier_grid(results, panel),
    }


def _mark(results: Results, pair: Any, reach: float, shortcut: bool) -> dict[str, Any] | None:
    """A cell's interval bar and reading."""
    if pair is None:
        return None
    claim = wording.claim_of(pair)
    symbol, words = wording.claim_words(claim, shortcut)
    claim = "none" if shortcut and claim else claim  # a higher score is no merit here
    bar = figures.difference_bar(pair, reach, results.by_name[pair["arm"]].style)
    stuck = wording.any_stuck(results.plateaus, pair)
    return {"claim": claim or "unknown", "symbol": symbol, "words": words, "bar": bar, "stuck": stuck}


def _figures(results: Results, panel: Panel) -> dict[str, Any]:
    curves = [figures.learning_curves(results, panel, m) for m in results.metric_names(panel)]
    swept = [snapshot_curves(results, panel, m) for m in results.metric_names(panel)]
    return {
        "learning": [curve for curve in curves if curve],
        "snapshots": [curve for curve in swept if curve],
        "swept": _swept(results, panel),
        "roc": figures.roc_curves(results, panel),
        "reliability": figures.reliability_plots(results, panel),
    }


def _pictures(config: Config) -> list[dict[str, Any]]:
    from trabecula.figures.montage import montage

    found = [
        ("Images of the store, the first by image id", _store_images(config, config.num_pictures)),
        *_samples(config, config.num_pictures),
    ]
    return [
        {"caption": caption, "number": len(images), "data": montage(images)}
        for caption, images in found
        if images
    ]


def _store_images(config: Config, number: int) -> list[Any]:
    from trabecula.figures.montage import store_images

    return store_images(config.store, number) if config.store else []


def _samples(config: Config, number: int) -> list[tuple[str, list[Any]]]:
    """(caption, images) of every generator."""
    from trabecula.figures.montage import sample_images

    found = []
    for path in config.samples:
        if path.is_dir() and has_encoder(path):
            if not (path / "samples.npy").exists():
                continue  # an arm that has no generator
            arm = read_encoder_card(path).name
            caption = f"Samples of the generator of {arm}"
            found.append((caption, sample_images(path / "samples.npy", number)))
        else:
            found.append(("Samples of a generator", sample_images(path, number)))
    return found


def _identities(config: Config) -> dict[str, str]:
    named = {
        "results": config.results,
        "manifest": config.manifest,
        "store": config.store,
    }
    known = {name: identity(path) for name, path in named.items() if path}
    for name in ("samples", "fidelity", "explained", "searches", "spectra"):
        known |= {f"{name} {i}": identity(path) for i, path in enumerate(getattr(config, name), 1)}
    return known


def _seeds(results: Results) -> dict[str, str]:
    return {
        name: ", ".join(str(s) for s in sorted({r[key] for r in results.rows if isinstance(r[key], int)}))
        or "–"
        for name, key in (("Label seeds", "seed"), ("Pretraining seeds", "pretrain_seed"))
    }
