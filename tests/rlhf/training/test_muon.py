"""Muon in float32 computes what torch's does in bfloat16, more exactly."""

import pytest
import torch

from rlhf.training.muon import Muon, orthogonalize


@pytest.mark.parametrize("shape", [(24, 24), (48, 16), (16, 48)])
def test_the_update_is_about_orthogonal(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    orthogonal = orthogonalize(matrix)
    assert orthogonal.shape == shape
    assert orthogonal.dtype == torch.float32
    values = torch.linalg.svdvals(orthogonal)
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3
    # It keeps the singular vectors: seen in them, it is diagonal.
    seen = u.mT @ orthogonal @ v.mT
    assert torch.allclose(seen, torch.diag(seen.diagonal()), atol=1e-4)


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 24)])
def test_its_steps_are_those_of_torch_up_to_bfloat16(shape):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = (
        Muon([ours], lr=0.02, momentum=0.95, weight_decay=0.1),
        torch.optim.Muon([theirs], lr=0.02, momentum=0.95, weight_decay=0.1),
    )
    for _ in range(5):
        grad = torch.randn(shape, generator=generator)
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = grad.clone()
            optimizer.step()
    moved = float((theirs - start).abs().max())
    assert torch.allclose(ours, theirs, atol=0.03 * moved)
    buffers = [
        o.state[p]["momentum_buffer"] for o, p in zip(optimizers, (ours, theirs), strict=True)
    ]
    assert torch.allclose(*buffers)


def test_a_parameter_without_a_gradient_stays_as_it_is():
    still = torch.nn.Parameter(torch.ones(3, 3))
    optimizer = Muon([still], lr=0.1, weight_decay=0.5)
    optimizer.step()
    assert torch.equal(still, torch.ones(3, 3))
    assert not optimizer.state
