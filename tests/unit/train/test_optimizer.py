"""Steps on the hyperboloid against those in all coordinates; several optimizers as one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.hyperboloid_net import distance2, exp0, lifted
from llmers_pipelines.train.loop import set_rate
from llmers_pipelines.train.optimizer_net import LONGEST, RiemannianSGD, Together, optimizer_of

pytestmark = pytest.mark.proof("hgcf", "equations")


def lorentz(x, y):
    return -x[..., :1] * y[..., :1] + (x[..., 1:] * y[..., 1:]).sum(-1, keepdim=True)


def reference(x, gradient_of, rate, momentum, decay, steps):
    """Return points (M, D + 1) after steps written in all coordinates, the buffer starting at 0."""
    buffer = torch.zeros_like(x)
    for _ in range(steps):
        leaf = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(gradient_of(leaf), leaf)
        grad = grad + decay * x
        grad = torch.cat([-grad[:, :1], grad[:, 1:]], 1)
        buffer = momentum * buffer + grad + lorentz(x, grad) * x
        step = -rate * buffer
        length = lorentz(step, step).clamp(min=1e-30).sqrt()
        new = length.cosh() * x + length.sinh() / length * step
        buffer = buffer + lorentz(new, buffer) / (1 - lorentz(x, new)) * (x + new)
        x = new
    return x


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.0), (0.9, 0.3)])
def test_steps_are_those_of_all_coordinates(momentum, decay):
    torch.manual_seed(0)
    start, aim = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    table = nn.Parameter(start.clone())
    optimizer = RiemannianSGD([table], 0.05, momentum, decay)
    for _ in range(6):
        optimizer.zero_grad()
        distance2(table, aim).sum().backward()
        optimizer.step()
    expected = reference(
        lifted(start), lambda x: (-lorentz(x, lifted(aim))).acosh().square().sum(), 0.05, momentum,
        decay, 6,
    )  # fmt: skip
    torch.testing.assert_close(lifted(table.detach()), expected)


@pytest.mark.parametrize(("radius", "near"), [(0.1, 2e-6), (1.0, 2e-6), (3.0, 2e-5)])
def test_steps_in_float32_are_those_of_all_coordinates_in_float64(radius, near):
    """``near``: ten times what rounding costs on a CPU, more far out."""
    torch.manual_seed(1)
    tangent = nn.functional.normalize(torch.randn(2, 50, 8, dtype=torch.float64), dim=-1)
    start, aim = exp0(radius * tangent)
    table = nn.Parameter(start.float())
    optimizer = RiemannianSGD([table], 0.02, 0.5, 0.01)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = distance2(table, aim.float()).sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    expected = reference(
        lifted(start), lambda x: (-lorentz(x, lifted(aim))).acosh().square().sum(), 0.02, 0.5,
        0.01, 20,
    )  # fmt: skip
    apart = distance2(table.detach().double(), expected[:, 1:]).sqrt()
    assert float(apart.max()) < near
    gone = distance2(start, expected[:, 1:]).sqrt()
    assert float(gone.min()) > 0.05
    assert losses[-1] < 0.5 * losses[0]


def test_a_step_goes_no_farther_than_its_bound():
    table = nn.Parameter(torch.full((3, 2), 0.4))
    before = table.detach().clone()
    table.grad = torch.tensor([[100.0, 0.0], [0.0, -3.0], [0.01, 0.0]])
    RiemannianSGD([table], 1.0).step()
    gone = distance2(table.detach(), before).sqrt()
    assert gone[:2].tolist() == pytest.approx([LONGEST] * 2, abs=1e-3) and gone[2] < 0.02


def test_decay_alone_draws_to_the_origin_and_what_has_no_gradient_stays():
    table, still = nn.Parameter(torch.full((2, 3), 0.5)), nn.Parameter(torch.ones(2, 3))
    optimizer = RiemannianSGD([table, still], 0.1, 0.0, 0.5)
    table.grad = torch.zeros_like(table)
    optimizer.step()
    assert bool((table < 0.5).all()) and bool((table > 0).all())
    assert still.tolist() == torch.ones(2, 3).tolist()


class Model(nn.Module):
    momentum, parts_lr = 0.9, 0.02

    def __init__(self):
        super().__init__()
        self.points = nn.Parameter(torch.full((4, 2), 0.3))
        self.dense = nn.Linear(2, 1)
        self.hooks = nn.ModuleList([nn.Linear(2, 1)])

    def on_manifold(self):
        return [self.points]

    def loss(self):
        return (self.dense(self.points) + self.hooks[0](self.points)).square().sum()


def model_and_optimizer():
    torch.manual_seed(2)
    model = Model()
    model.hooks[0].rate = 0.01
    return model, optimizer_of(model, Fit(lr=0.5))


def stepped(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss().backward()
        optimizer.step()
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def test_points_dense_weights_and_hooks_have_rates_of_their_own():
    _, optimizer = model_and_optimizer()
    assert isinstance(optimizer, Together)
    kinds = [type(part).__name__ for part in optimizer.parts]
    assert kinds == ["RiemannianSGD", "AdamW"]
    set_rate(optimizer, Fit(lr=0.5), 0.0)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.5, 0.02, 0.01])
    set_rate(optimizer, Fit(lr=0.5, schedule="cosine"), 0.5)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.25, 0.01, 0.005])


def test_a_stored_state_goes_on_bit_for_bit():
    whole, optimizer = model_and_optimizer()
    expected = stepped(whole, optimizer, 6)
    first, before = model_and_optimizer()
    stepped(first, before, 3)
    held = before.state_dict()
    numbers = sorted(held["state"])
    assert numbers == list(range(5)) == sorted(n for g in held["param_groups"] for n in g["params"])
    second, after = model_and_optimizer()
    second.load_state_dict(first.state_dict())
    after.load_state_dict(held)
    found = stepped(second, after, 3)
    assert all(torch.equal(found[n], expected[n]) for n in expected)


def test_other_models_keep_their_adamw():
    plain = nn.Linear(2, 1)
    plain.hooks = nn.ModuleList()
    optimizer = optimizer_of(plain, Fit(lr=0.1, weight_decay=0.2))
    assert type(optimizer) is torch.optim.AdamW and len(optimizer.param_groups) == 1
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (0.1, 0.2)
