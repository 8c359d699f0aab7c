"""Grey values as networks see them: texture stays, exposure may go."""

import torch

from hipray.data.intensity import centre, remove_background


def draw_texture() -> torch.Tensor:
    return torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.1


def test_exposure_and_soft_tissue_go_with_the_local_mean() -> None:
    texture = draw_texture()
    ramp = torch.linspace(0.1, 0.7, 64).expand(1, 1, 64, 64)
    plain, uneven = (remove_background(films, 0.06) for films in (texture, texture + ramp))
    inner = (..., slice(12, -12), slice(12, -12))  # at a border the ramp has no mean
    assert torch.corrcoef(torch.stack([plain[inner].ravel(), uneven[inner].ravel()]))[0, 1] > 0.98


def test_gain_goes_with_the_contrast() -> None:
    texture = draw_texture()
    assert torch.allclose(
        remove_background(texture, 0.1), remove_background(texture * 5, 0.1), atol=0.1
    )
    assert remove_background(texture, 0.1).std() > 0.9


def test_an_even_film_stays_even_and_finite() -> None:
    film = torch.full((1, 1, 32, 32), 0.5)
    assert remove_background(film, 0.1).abs().max() < 1e-3
    assert torch.isfinite(centre(film)).all()


def test_what_is_autocast_changes_no_local_mean() -> None:
    films = draw_texture()
    with torch.autocast("cpu", torch.bfloat16):
        lowered = remove_background(films, 0.1)
    assert torch.equal(lowered, remove_background(films, 0.1))
