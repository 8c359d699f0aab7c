"""Choose the members of the release that a run would publish."""

from collections.abc import Collection, Sequence

from hipray.vocab import HEADLINE_REGIONS, Cell, LabelType, Variant


def choose_members(
    finished: Collection[Cell], *, backbones: Sequence[str], variants: Sequence[Variant]
) -> tuple[Cell, ...]:
    """Return the finished T-score cells of the headline regions in the release's variant.

    The variant is segmented where the run has it, else the run's first one. Empty where no such
    cell has finished.
    """
    variant = Variant.SEGMENTED if Variant.SEGMENTED in variants else variants[0]
    wanted = [
        Cell(region, LabelType.T_SCORE, backbone, variant)
        for region in HEADLINE_REGIONS
        for backbone in backbones
    ]
    return tuple(cell for cell in wanted if cell in finished)
