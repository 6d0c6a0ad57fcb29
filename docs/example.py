# %% [markdown]
# # With and without augmentation, compared in a minute
#
# Each cell (`# %%`) runs in an editor that knows cells, or all of them as `python docs/example.py`
# from the repository's root. Everything is synthetic: nothing here says anything about patients.

# %% Load the synthetic corpus (it is drawn on first use) and look at it
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1] if "__file__" in globals() else Path.cwd()
sys.path.insert(0, str(ROOT))

from data import CORPORA  # noqa: E402
from data.batches import apply_affine, random_affine  # noqa: E402
from models import create_model  # noqa: E402
from models.inference import predict, to_input  # noqa: E402
from models.training import create_optimizer, multilabel_loss  # noqa: E402
from stats import auroc, paired_bootstrap  # noqa: E402

train_set = CORPORA["phantom"]("datasets/phantom", "train", image_size=64)
test_set = CORPORA["phantom"]("datasets/phantom", "test", image_size=64)
image, labels = train_set[0]
print(len(train_set), "training images of shape", tuple(image.shape), train_set.labels)

# %% Embed: the class token of a network that knows nothing yet
model = create_model("vit_micro", img_size=64, seed=0)
images, _ = train_set.batch(np.arange(8))
print("embeddings", tuple(model.forward_features(to_input(images, [0.5] * 3, [0.25] * 3)).shape))


# %% Train twice from the same random weights: with and without the paper's augmentation
def fine_tune(augment, epochs=4, batch_size=32):
    """Train vit_micro on the training set; gives the test set's labels and probabilities."""
    torch.manual_seed(0)
    model = create_model("vit_micro", num_classes=len(train_set.labels), img_size=64, seed=0)
    optimizer = create_optimizer(model, lr=1e-3)
    pos_weight = torch.from_numpy(train_set.pos_weight())
    rng = np.random.default_rng(0)
    for _ in range(epochs):
        for batch in np.array_split(rng.permutation(len(train_set)), len(train_set) // batch_size):
            images, labels = train_set.batch(batch)
            if augment:
                images = apply_affine(images, random_affine(rng, len(batch)))
            logits = model(to_input(images, [0.5] * 3, [0.25] * 3))
            loss = multilabel_loss(logits, labels, pos_weight) / labels.numel()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return predict(model, test_set, mean=[0.5] * 3, std=[0.25] * 3)


y_true, plain = fine_tune(augment=False)
_, augmented = fine_tune(augment=True)

# %% Compare on the same test images, resampling patients
pair = paired_bootstrap(y_true, augmented, plain, groups=test_set.table.patient_id)
print("AUC, %            augmented  plain")
for label, a, b, p in zip(test_set.labels, auroc(y_true, augmented), auroc(y_true, plain),
                          pair.p_value):
    print(f"{label:18}{100 * a:6.1f} {100 * b:6.1f}   p = {p:.3f}")
print(f"mean over labels: p = {pair.mean_p_value:.3f}")

# %% Draw
try:
    from matplotlib.figure import Figure
except ImportError:
    print("no figure: pip install matplotlib")
else:
    figure = Figure(figsize=(6, 4), layout="constrained")
    pictures, axes = figure.subplots(2, height_ratios=(1, 3))
    pictures.imshow(np.hstack([train_set[i][0][0] for i in range(5)]), cmap="gray")
    pictures.set_axis_off()
    low, high = np.nanpercentile(100 * pair.difference, [2.5, 97.5], axis=0)
    center = 100 * np.nanmean(pair.difference, axis=0)
    places = np.arange(len(center))[::-1]
    axes.errorbar(center, places, xerr=[center - low, high - center], fmt="o", color="#0072B2")
    axes.axvline(0, color="0.6")
    axes.set(yticks=places, xlabel="difference in ROC-AUC, points (augmented - plain)")
    axes.set_yticklabels(test_set.labels)
    figure.savefig("example.png", dpi=120)
    print("example.png")
