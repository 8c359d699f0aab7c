"""Choose the members of the release that a run would publish."""

from collections.abc import Collection, Sequence

from hipray.vocab import HEADLINE_REGIONS, Cell, LabelType, Variant


def choose_variant(variants: Sequence[Variant]) -> Variant:
    """Return the release's variant: segmented where the run has it, else the run's first one."""
    return Variant.SEGMENTED if Variant.SEGMENTED in variants else variants[0]


def choose_members(
    finished: Collection[Cell], *, backbones: Sequence[str], variants: Sequence[Variant]
) -> tuple[Cell, ...]:
    """Return the finished T-score cells of the headline regions in the release's variant.

    Empty where no such cell has finished.
    """
    variant = choose_variant(variants)
    wanted = [
        Cell(region, LabelType.T_SCORE, backbone, variant)
        for region in HEADLINE_REGIONS
        for backbone in backbones
    ]
    return tuple(cell for cell in wanted if cell in finished)
