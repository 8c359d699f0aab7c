"""Write a report as Markdown that reads well on GitHub."""

from collections.abc import Iterator, Sequence

from hipray.evaluation.document import Document, Section
from hipray.evaluation.layout import Block, Entry, Row, TableView

_ESCAPED = str.maketrans(
    {"|": "\\|", "<": "&lt;", ">": "&gt;", "*": "\\*", "_": "\\_", "`": "\\`", "\n": " "}
)


def write_markdown(document: Document) -> str:
    """Return the document as Markdown; figures are linked beside it, tables are the page's."""
    lines = [
        f"# {escape_markdown(document.title)} ({document.source} data)",
        f"**{document.notice}**",
        escape_markdown(document.subtitle),
        *(f"> **{escape_markdown(banner)}**" for banner in document.banners),
        *(line for section in document.sections for line in _write_section(section)),
        f"**{document.notice}**",
    ]
    return "\n\n".join(lines) + "\n"


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows as it stands, inside a table as well."""
    return text.translate(_ESCAPED)


def write_table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table of escaped cells; the first column names the row."""
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _write_section(section: Section) -> Iterator[str]:
    yield f"## {escape_markdown(section.title)}"
    if section.warning:
        yield f"> **{escape_markdown(section.warning)}**"
    yield from (escape_markdown(paragraph) for paragraph in section.paragraphs)
    if section.facts:
        yield "\n".join(
            f"- **{escape_markdown(name)}**: {escape_markdown(value)}"
            for name, value in section.facts
        )
    if section.bullets:
        yield "\n".join(f"- {escape_markdown(bullet)}" for bullet in section.bullets)
    for view in section.tables:
        yield from _write_view(view)
    for picture in section.pictures:
        yield f"![{escape_markdown(picture.text)}]({picture.path})"


def _write_view(view: TableView) -> Iterator[str]:
    yield escape_markdown(view.caption)
    columns = ("Model", *(escape_markdown(column) for column in view.columns))
    rows = [line for block in view.blocks for line in _write_block(block, len(view.columns))]
    yield write_table(columns, rows)
    if view.footnotes:
        yield "\n".join(
            f"{number}. {escape_markdown(note)}" for number, note in enumerate(view.footnotes, 1)
        )


def _write_block(block: Block, width: int) -> Iterator[tuple[str, ...]]:
    yield (
        f"**{escape_markdown(block.heading)}**",
        escape_markdown(block.sentence),
        *[""] * (width - 1),
    )
    for row in block.rows:
        yield (_write_name(row), *(_write_entry(entry) for entry in row.entries))


def _write_name(row: Row) -> str:
    return "<br>".join(escape_markdown(text) for text in (row.name, row.detail) if text)


def _write_entry(entry: Entry) -> str:
    mark = f" [{entry.mark}]" if entry.mark else ""
    paper = "" if entry.paper is None else f"paper {entry.paper}{mark}"
    return "<br>".join(escape_markdown(text) for text in (entry.ours, entry.spread, paper) if text)
