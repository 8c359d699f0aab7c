"""The card of a bundle: what the model is, learned from and must not be used for."""

from hipray.bundles.bundle import BundleDescription
from hipray.vocab import DataSource

SOURCE_SENTENCE = {
    DataSource.PHANTOM: "It learned from generated phantoms; its numbers say nothing of patients.",
    DataSource.REAL: "It learned from films of people.",
}


def write_card(description: BundleDescription) -> str:
    """Return the card as Markdown; what is not known reads NOT PROVIDED."""
    rows = "\n".join(f"| {key} | {value} |" for key, value in sorted(description.summary.items()))
    software = ", ".join(f"{name} {number}" for name, number in description.software.items())
    leaks = (
        "**The leakage guard was overridden: test results may be learned from training films.**"
        if description.leaks_allowed
        else "The leakage guard found no patient or film on both sides of the split."
    )
    if description.optimistic:
        leaks += f" **Its test results are optimistic: {description.optimistic}**"
    return f"""# {description.name}

**{description.research_notice}**

A {description.model.kind} of hip radiographs. {SOURCE_SENTENCE[description.data_source]} {leaks}

| figure | value |
| --- | --- |
{rows}

- Preprocessing version: {description.preprocessing_version}
- Software: {software}
- {_describe_export(description)}
- {_describe_bfloat16(description)}
- Intended use: research on opportunistic screening for osteoporosis
- Intended population: NOT PROVIDED
- External validation: NOT PROVIDED
- Ethics approval: NOT PROVIDED
- Known limits: NOT PROVIDED
"""


def _describe_export(description: BundleDescription) -> str:
    note = description.onnx
    if note.reason:
        return f"Runtime: torch only, because {note.reason}"
    return f"Runtimes: torch, and ONNX Runtime, whose answers differ by {note.difference} at most"


def _describe_bfloat16(description: BundleDescription) -> str:
    change = description.bfloat16_difference
    known = "NOT PROVIDED" if change is None else change
    return f"bfloat16 (off by default) changes an answer by up to {known}"
