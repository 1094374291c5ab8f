"""03: train a model and measure it.

A family is trained by its recipe into a run folder, which holds everything about the run: settings,
checkpoints, metrics and the model. An evaluation encodes each held-out mesh once and compares the
model with PCA of the same latent size and with the mean shape. Errors are distances in mm.

Needs data/hands of 01_dataset.py. Writes runs/hands, which the next examples use.
"""

from __future__ import annotations

from pathlib import Path

import morphable

data = morphable.load_dataset("data/hands").split("subject")
folder = Path("runs/hands")

# Settings that are not given are those of the family's `fast` recipe.
if not folder.exists():
    morphable.train_model("pca-mlp", data=data, folder=folder, latent=8, train={"epochs": 40})
model = morphable.load(folder)
print(
    f"{model.family}: latent size {model.latent}, {sum(p.numel() for p in model.parameters()):,} parameters"
)

# The test subset is people whom training never saw.
measured = morphable.evaluate_model(model, data=data, subset="test")
rows = {
    "the mean shape": measured.measures["baselines"]["mean_shape"],
    "PCA": measured.measures["baselines"]["pca"],
    model.family: measured.measures["model"],
}
for name, measures in rows.items():
    error = measures["vertex_error_mm"]
    # There is no interval if fewer than eight people were measured.
    interval = "{:.2f} to {:.2f}".format(*error["ci95"]) if error["ci95"] else "none"
    print(f"{name}: {error['mean']:.2f} mm (95 % interval {interval})")
assert rows[model.family]["vertex_error_mm"]["mean"] < rows["PCA"]["vertex_error_mm"]["mean"]
