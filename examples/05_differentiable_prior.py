"""05: a differentiable prior: fit 20 points by gradient descent.

`decode` is differentiable, so a model can be the prior of any estimation: look for the code whose
shape agrees with what was measured and that is probable under the prior. Here 20 points of a hand
are known, and the other 1,589 vertices are inferred.

Needs data/hands of 01_dataset.py and runs/hands of 03_train_and_measure.py.
"""

from __future__ import annotations

import numpy as np
import torch

import morphable

model = morphable.load("runs/hands")
test = morphable.load_dataset("data/hands").split("subject").test
truth = torch.from_numpy(test.vertices[3])  # (V, 3) mm, a person whom training never saw

# What is known: 20 vertices, spread over the surface, with half a millimeter of noise.
noise = 0.5  # mm
generator = torch.Generator().manual_seed(0)
known = np.linspace(0, model.template.n_vertices - 1, 20).astype(int)
points = truth[known] + noise * torch.randn(20, 3, generator=generator)

# What is sought: a code. The start is the mean of the prior.
prior = model.require_prior()
code = prior.mean.clone().requires_grad_()
optimizer = torch.optim.Adam([code], lr=0.05)
for step in range(300):
    shape = model.decode(code[None])[0]  # (V, 3) mm
    residual = (shape[known] - points).square().sum()
    loss = residual / (2 * noise**2) + prior.energy(code[None]).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        print(f"step {step}: points are {(residual / 20).sqrt():.2f} mm away")

# `torch.func` works on every decoder: how far each vertex moves per unit of each code dimension.
jacobian = torch.func.jacfwd(lambda code: model.decode(code[None])[0])(code.detach())  # (V, 3, L)
print(f"a unit of the code moves a vertex by up to {jacobian.norm(dim=1).max():.2f} mm")

with torch.no_grad():
    fitted = model.decode(code[None])[0]
    start = model.decode(prior.mean[None])[0]
    best = model(truth[None])[0]
for name, shape in (("start", start), ("fitted to 20 points", fitted), ("encoded whole", best)):
    print(f"{name}: {(shape - truth).norm(dim=-1).mean():.2f} mm from the true hand")
assert (fitted - truth).norm(dim=-1).mean() < 0.5 * (start - truth).norm(dim=-1).mean()
