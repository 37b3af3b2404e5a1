"""Results -> one self-contained report.html and tables (csv, md, tex): `trabecula report`.

Reads what `evaluate` wrote and computes no statistic. The page needs no network, shows no patient
id, and is the same bytes for the same inputs.

    report.html
    tables/results.*  comparisons.*  label_multipliers.*  fractions.*     each as csv, md, tex
    tables/pools.*  shortcuts.*  snapshots.*       where the study has them, as md, tex
    tables/hip_gan.*  knee_ssl.*                   with paper: the paper's tables and ours
    figures/*.svg                                  every figure of the page, with its legend
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from trabecula.config import NoEffectOnResult, Record
from trabecula.run import Run, identity
from trabecula.sections import evaluated, verdict
from trabecula.sections.generators import generator_section, read_explained, read_generators
from trabecula.sections.pictures import pictures_section
from trabecula.sections.pretraining import pretraining_section, read_pretrainings
from trabecula.sections.pretraining_pools import pools_section
from trabecula.sections.provenance import flow_section, provenance_section
from trabecula.sections.published import published_section
from trabecula.sections.published.paper import StudyFiles
from trabecula.sections.results import Results, read_results
from trabecula.sections.section import Section, render, section_files
from trabecula.sections.shortcuts import shortcuts_section


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
    """Write the page and the tables; an InputError where a file is missing or is not what its verb writes."""
    results = read_results(config.results, config.shortcuts)
    sections = page_sections(results, config)
    for folder in ("tables", "figures"):
        (out / folder).mkdir(exist_ok=True)
    for name, content in section_files(sections).items():
        out.write(name, content)
    out.write("report.html", render(config.title, sections))
    return f"report.html: {verdict.in_a_line(results)}"


def page_sections(results: Results, config: Config) -> list[Section]:
    """The page from top to bottom; a section of which the study has nothing is left out."""
    generators, explained = read_generators(config.fidelity), read_explained(config.explained)
    trained = read_pretrainings(config.runs, bool(config.store and config.num_pictures))
    study = StudyFiles(
        results, generators, explained, trained, config.runs, config.store, config.samples, config.spectra,
        config.searches,
    )  # fmt: skip
    published = published_section(config.paper, study) if config.paper else None
    sections = [
        evaluated.verdict_section(results, config.not_run, trained.at_the_end if trained else {}),
        pools_section(results),
        shortcuts_section(results),
        evaluated.results_section(results),
        evaluated.comparisons_section(results),
        evaluated.curves_section(results),
        generator_section(generators, explained, published.pictures if published else ()),
        published,
        pretraining_section(trained),
        pictures_section(config.store, config.samples, config.num_pictures),
        flow_section(results, config.manifest, config.store),
        provenance_section(results, config.runs, _identities(config), config.command),
        evaluated.reading_section(results),
    ]
    return [section for section in sections if section]


def _identities(config: Config) -> dict[str, str]:
    paths = {"results": config.results, "manifest": config.manifest, "store": config.store}
    for name in ("samples", "fidelity", "explained", "searches", "spectra"):
        paths |= {f"{name} {i}": path for i, path in enumerate(getattr(config, name), 1)}
    return {name: identity(path) for name, path in paths.items() if path}
