"""Points of the hyperboloid: hand-computed cases, and the same maps in all D + 1 coordinates."""

from __future__ import annotations

import math

import pytest
import torch

from llmers_pipelines.models import hyperboloid_net as h

pytestmark = [pytest.mark.proof("hgcf", "equations"), pytest.mark.proof("harec", "equations")]


def points(*shape: int, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64) * scale


@pytest.fixture(autouse=True)
def seed():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        yield


def lorentz(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return -x[..., 0] * y[..., 0] + (x[..., 1:] * y[..., 1:]).sum(-1)


def test_hand_computed_points_and_distances():
    """exp0((.3, .4)) has length .5: (cosh .5, .6 sinh .5, .8 sinh .5)."""
    v = torch.tensor([0.3, 0.4], dtype=torch.float64)
    x = h.exp0(v)
    assert h.lifted(x).tolist() == pytest.approx([1.1276260, 0.3126572, 0.4168762], abs=1e-6)
    assert h.distance2(x, torch.zeros_like(x)).sqrt().item() == pytest.approx(0.5, abs=1e-7)
    assert h.distance2(x, -x).sqrt().item() == pytest.approx(1.0, abs=1e-7)
    assert h.log0(x).tolist() == pytest.approx([0.3, 0.4], abs=1e-12)


def test_maps_are_inverse_of_each_other_and_defined_at_the_origin():
    v = torch.cat([points(20, 5), torch.zeros(1, 5, dtype=torch.float64)])
    torch.testing.assert_close(h.log0(h.exp0(v)), v)
    zero = torch.zeros(1, 3, requires_grad=True)
    for fn in (h.exp0, h.log0):
        (grad,) = torch.autograd.grad(fn(zero).sum(), zero)
        assert grad.tolist() == [[1.0, 1.0, 1.0]]


def test_distances_are_clamped_as_released_where_gradients_end():
    near = torch.zeros(1, 2, requires_grad=True)
    h.distance2(near, near.detach()).sum().backward()
    assert near.grad is not None and near.grad.tolist() == [[0.0, 0.0]]  # not the 0 / 0 of acosh
    far = h.exp0(torch.tensor([[9.0, 0.0], [-9.0, 0.0]], dtype=torch.float64))
    assert h.distance2(far[0], far[1]).item() == 50.0
    assert h.distance2(near, near).item() < 1e-6


NEAR = [(0.0, 0.01), (2.0, 0.01), (2.0, 0.1), (5.0, 0.1), (5.0, 1.0)]  # radius, gap


@pytest.mark.parametrize(("radius", "gap"), NEAR)
def test_gradients_in_float32_have_the_length_of_the_distance(radius, gap):
    """|grad d^2| = 2 d on the manifold. Nearer to each other far out, rounding leaves nothing."""
    x = h.exp0(radius * torch.nn.functional.normalize(points(200, 10), dim=1))
    away = points(200, 10)
    y = h.moved(x, gap * away / h.tangent_length(x, away))
    narrow = x.float().requires_grad_()
    h.distance2(narrow, y.float()).sum().backward()
    assert narrow.grad is not None
    steepest = h.riemannian(x, narrow.grad.double())
    length = h.tangent_length(x, steepest)[:, 0] / (2 * gap)
    assert bool((narrow.grad != 0).any(1).all())
    assert float((length - 1).abs().median()) < 1e-3


def test_a_step_and_what_is_carried_along_are_those_of_all_coordinates():
    x, v = points(8, 4), points(8, 4, scale=0.5)
    full = torch.cat([(x * v).sum(1, keepdim=True) / h.time_of(x), v], 1)
    own = h.lifted(x)
    assert lorentz(own, full).abs().max() < 1e-12  # tangent
    length = lorentz(full, full).sqrt()[:, None]
    expected = length.cosh() * own + length.sinh() / length * full
    new = h.moved(x, v)
    torch.testing.assert_close(h.lifted(new), expected)
    torch.testing.assert_close(h.distance2(x, new), length[:, 0] ** 2)
    along = lorentz(expected, full)[:, None] / (1 - lorentz(own, expected)[:, None])
    carried = full + along * (own + expected)
    torch.testing.assert_close(h.transported(x, new, v), carried[:, 1:])
    torch.testing.assert_close(lorentz(carried, carried), length[:, 0] ** 2)  # keeps its length
    torch.testing.assert_close(h.moved(x, torch.zeros_like(v)), x)


def test_the_riemannian_gradient_is_the_projected_flipped_gradient():
    x = points(6, 3).requires_grad_()
    aim = points(6, 3)
    (by_space,) = torch.autograd.grad(h.distance2(x, aim).sum(), x)
    full = h.lifted(x.detach()).requires_grad_()
    distance = (-lorentz(full, h.lifted(aim))).acosh().square()
    (by_all,) = torch.autograd.grad(distance.sum(), full)
    flipped = torch.cat([-by_all[:, :1], by_all[:, 1:]], 1)
    projected = flipped + lorentz(full, flipped)[:, None] * full.detach()
    found = h.riemannian(x.detach(), by_space)
    torch.testing.assert_close(found, projected[:, 1:].detach())
    # -grad d^2 / 2 points straight at the aim: one full step arrives
    torch.testing.assert_close(h.moved(x.detach(), -found / 2), aim)


def test_a_centroid_has_the_least_sum_and_moves_with_its_points():
    x = points(9, 3)
    middle = h.centroid(x)

    def total(p):
        return -(h.dual(x) * h.lifted(p)).sum()

    best = total(middle)
    for _ in range(20):
        assert total(middle + points(3, scale=0.05)) > best
    torch.testing.assert_close(h.centroid(x[:1]), x[0])
    mirror = h.centroid(torch.cat([x, -x]))
    assert mirror.abs().max() < 1e-12 and math.isclose(float(h.time_of(mirror)), 1.0)
