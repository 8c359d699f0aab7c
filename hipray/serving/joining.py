"""Several films in one forward pass: joined along the hip axis and handed back exactly.

Legend of shapes: N hips of one film, M hips of a batch of films.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from hipray.pipeline import FramedHips, Probabilities, Views, join_hips
from hipray.segmentation.segmenter import Segmentation


def slice_films(counts: Sequence[int]) -> Iterator[slice]:
    """Yield where each film's hips lie in a batch, from their numbers per film."""
    start = 0
    for count in counts:
        yield slice(start, start + count)
        start += count


def join_films(films: Sequence[FramedHips]) -> tuple[FramedHips, list[slice]]:
    """Return the hips (M) of all films and where each film's lie."""
    return join_hips(films), list(slice_films([len(film.frames) for film in films]))


def join_views(films: Sequence[Views]) -> tuple[Views, list[slice]]:
    """Return the views of all films, per region (M, P, P), and where each film's lie."""
    sizes, regions = films[0].films, films[0].present
    joined = Views(
        np.concatenate([views.people for views in films]),
        {size: np.concatenate([views.films[size] for views in films]) for size in sizes},
        {region: np.concatenate([views.present[region] for views in films]) for region in regions},
    )
    return joined, list(slice_films([len(views.people) for views in films]))


def split_views(views: Views, places: Sequence[slice]) -> list[Views]:
    """Return each film's views."""
    return [
        Views(
            views.people[place],
            {size: films[place] for size, films in views.films.items()},
            {region: present[place] for region, present in views.present.items()},
        )
        for place in places
    ]


def split_segmentation(segmentation: Segmentation, places: Sequence[slice]) -> list[Segmentation]:
    """Return each film's masks and confidence."""
    masks, confidence = segmentation.masks, segmentation.confidence
    return [Segmentation(masks[place], confidence[place]) for place in places]


def split_probabilities(
    probabilities: Probabilities, places: Sequence[slice]
) -> list[Probabilities]:
    """Return each film's probabilities."""
    return [
        {question: values[place] for question, values in probabilities.items()} for place in places
    ]
