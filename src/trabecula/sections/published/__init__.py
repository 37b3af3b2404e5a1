"""A paper's tables and figures, and this study's beside them, clearly marked: one section from a data file.

A paper is a file here, PAPER.toml, and its name in `paper` of `report`. The file names functions of this
folder that find this study's side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from trabecula.figures.image_sheets import montage, png_uri
from trabecula.sections.curves import roc_curves
from trabecula.sections.formats import Table
from trabecula.sections.names import metric_name
from trabecula.sections.pictures import sample_grids, store_grid
from trabecula.sections.published import records, searches
from trabecula.sections.published.arms import CLASSES, arm_tables, task_group
from trabecula.sections.published.figures import drawn
from trabecula.sections.published.paper import Paper, PublishedBlock, PublishedTable, StudyFiles, read_paper
from trabecula.sections.section import Block, FoldedTable, PagePicture, Section

TABLES: Mapping[str, Callable[[Paper, PublishedTable, StudyFiles], Table]] = {
    "fine_tuned": records.fine_tuned, "generators": records.generators, "units": records.units,
    "head_choices": searches.head_choices, "best_heads": searches.best_heads,
    "head_pairs": searches.head_pairs,
}  # fmt: skip
MAXIMISED = "maximise.png"
_GRID = 25  # images, five across


def published_section(name: str, study: StudyFiles, folder: Path = Path(__file__).parent) -> Section:
    """The section of a paper: "hip-gan" is that of hip_gan.toml in the folder."""
    paper = read_paper(name, folder)
    blocks = [Block("note", paper.intro.strip())]
    blocks += [block for asked in paper.blocks for block in _blocks(paper, asked, study)]
    shown = [b.content.table if b.kind == "folded_table" else b.content for b in blocks if "table" in b.kind]
    rows = [row for table in arm_tables(paper, study) for row in table.raw_rows]
    files = {name.replace("-", "_"): (shown, rows or None)}
    pictures = [MAXIMISED] if any(asked.show == "maximised" for asked in paper.blocks) else []
    return Section("paper", paper.name, paper.title, blocks, files, pictures=pictures)


def _blocks(paper: Paper, asked: PublishedBlock, study: StudyFiles) -> list[Block]:
    """A block of the data file; [] where this study has nothing and the file does not say what is missing."""
    found = BLOCKS[asked.show](paper, study) if asked.show else []
    if asked.table:
        published = paper.table(asked.table)
        table = TABLES[published.ours](paper, published, study)
        found += [Block("table", table)] if table.rows else []
    if asked.show and not found:
        if not asked.missing:
            return []
        found = [Block("note", asked.missing)]
    words = [Block(kind, text) for kind in ("heading", "text", "note") if (text := getattr(asked, kind))]
    return [*words, *found]


def _samples(_paper: Paper, study: StudyFiles) -> list[Block]:
    """Images of the first generator and of the store; a line for what is missing."""
    samples = next((images for _, images in sample_grids(study.samples, _GRID)), [])
    pictures, missing = list[PagePicture](), list[Block]()
    for figure, images, words, kind, none in (
        ("Figure 2", samples, "generated images", "generated", "samples were"),
        ("Figure 3", store_grid(study.store, _GRID), "images of the data set", "real", "store was"),
    ):
        if images:
            alt, data = f"{len(images)} {kind} images in a grid", png_uri(montage(images, 5))
            pictures.append(PagePicture(f"{figure}, this study: {len(images)} {words}", alt, data))
        else:
            missing.append(Block("note", f"{figure}: no {none} given."))
    return [*([Block("picture_row", pictures)] if pictures else []), *missing]


def _distances(_paper: Paper, study: StudyFiles) -> list[Block]:
    """The first distance of each generator over training; the section on generators has all of them."""
    return [Block("repeated_charts", generator.charts[:1]) for generator in study.generators]


def _maximised(_paper: Paper, study: StudyFiles) -> list[Block]:
    return [
        Block("pictures", [one.pictures[MAXIMISED]._replace(caption=f"This study, {one.name}")])
        for one in study.explained
        if MAXIMISED in one.pictures
    ]


def _roc(paper: Paper, study: StudyFiles) -> list[Block]:
    table = next(table for table in paper.tables if table.ours == "fine_tuned")
    panels = records.fine_tuned_panels(study.results)
    groups = [group for panel in panels for group in roc_curves(study.results, panel, table.networks)]
    return [Block("repeated_figures", groups)]


def _lacking(paper: Paper, study: StudyFiles) -> list[Block]:
    """What the paper's part would need and this study's files lack, a line each."""
    results, found, lines = study.results, arm_tables(paper, study), []
    metrics: dict[str, str] = {table.tasks: table.metric for table in paper.tables if table.ours == "arms"}
    for task, record in results.flow.tasks.items():
        metric = metrics.get("grades" if record.kind in CLASSES else task_group(record), "")
        there = any((row.task, row.metric) == (task, metric) for row in results.summaries)
        if metric and not there:
            lines.append(f"the results have no {metric_name(metric)} of {task}, by which the paper scores.")
    lines += [line for table in found for line in table.lacking]
    if not found and not drawn(paper, study) and not lines:
        lines.append(
            "This study has no arm but random ones on grades or several findings, neither pools of several "
            "sizes nor a spectrum: there is nothing to stand beside the paper's tables and figures."
        )
    pretrained = [study.learned.get(arm.name) for arm in results.arms if arm.family == "pretrained"]
    if pretrained and not any(known and known.num_images for known in pretrained):
        lines.append(
            "No run folder of a pretraining with its log was given (--runs), so whose images, and how many, "
            "each encoder learned from is not known."
        )
    return [Block("note", line) for line in lines]


def _arms(paper: Paper, study: StudyFiles) -> list[Block]:
    """Of each of the paper's tables ours and its values, our differences, our spread over label seeds."""
    blocks = []
    for i, table in enumerate(arm_tables(paper, study)):
        blocks += [Block("heading", table.name), Block("table", table.values)]
        blocks += [Block("table", table.differences)] if table.differences.rows else []
        folded = FoldedTable(table.spread.title, table.spread, opened=i == 0)
        blocks += [Block("folded_table", folded)] if table.spread.rows else []
    return blocks


def _searches(_paper: Paper, study: StudyFiles) -> list[Block]:
    table = searches.chosen_settings(study.results, study.searches)
    return [Block("table", table)] if table.rows else []


def _random_probes(paper: Paper, study: StudyFiles) -> list[Block]:
    texts = [table.random_probes for table in arm_tables(paper, study)]
    return [Block("text", text) for text in texts if text]


def _figures(paper: Paper, study: StudyFiles) -> list[Block]:
    blocks = []
    for figure, charts in drawn(paper, study):
        blocks += [Block("heading", f"{figure.name}: {figure.what}"), Block("note", figure.text)]
        blocks.append(Block("charts", charts))
    return blocks


def _reconstructions(_paper: Paper, study: StudyFiles) -> list[Block]:
    shown = study.pretrainings and study.pretrainings.sheets
    return [Block("note", "This study's stand under [Pretraining](#pretraining).")] if shown else []


BLOCKS: Mapping[str, Callable[[Paper, StudyFiles], list[Block]]] = {
    "samples": _samples, "distances": _distances, "maximised": _maximised, "roc": _roc, "lacking": _lacking,
    "arms": _arms, "searches": _searches, "random_probes": _random_probes, "figures": _figures,
    "reconstructions": _reconstructions,
}  # fmt: skip
