"""`train.py --probe`: what an init's features are worth, with nothing trained but the head.

Each image goes through the network once, without augmentation; its class token is kept on disk.
Logistic regression on the tokens gives the head, and k nearest neighbors a second opinion.
"""

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from models.checkpoint import atomic_write
from models.inference import predict
from models.training import multilabel_loss, validation_loss

CHUNK = 256  # images in a file of features: what a kill can cost
STRENGTHS = [10.0**k for k in range(-6, 1)]  # of the L2 penalty, as scikit-learn's C


def fit_head(run, stop, bar, auroc):
    """Fit the head of a `train.Run`; `auroc(y_true, y_score)` per label chooses the L2 penalty.

    Returns the training loss and validation's (y_true, y_score); None for both after a stop.
    """
    tokens = [cached_features(run, images, stop, bar) for images in (run.train_set, run.val_set)]
    if any(part is None for part in tokens):
        return None, None
    x, held_out = map(torch.from_numpy, tokens)
    y, y_true = torch.from_numpy(run.train_set.table.y), run.val_set.table.y

    def mean_auroc(scores):
        per_label = auroc(y_true, scores.numpy())
        defined = per_label[np.isfinite(per_label)]
        return float(defined.mean()) if len(defined) else np.nan

    began, fits = time.monotonic(), []
    center, scale = x.mean(0), x.std(0, correction=0).clamp(min=1e-6)
    for C, weight, bias in fit_logistic((x - center) / scale, y, STRENGTHS):
        weight = weight / scale  # for the tokens as the network gives them
        bias = bias - weight @ center
        scores = F.linear(held_out, weight, bias).sigmoid()
        fits.append((mean_auroc(scores), C, weight, bias, scores))
    best, C, weight, bias, scores = max(fits, key=lambda fit: np.nan_to_num(fit[0]))
    run.model.head.load_state_dict(dict(weight=weight, bias=bias))
    knn = mean_auroc(knn_scores(x, y, held_out))
    run.print(f"linear probe: C {C:g}, fitted in {time.monotonic() - began:.1f} s, validation AUC "
              f"{best:.4f}; 20 nearest neighbors: {knn:.4f}")
    run.record |= dict(probe_C=C, probe_knn_auroc=knn)
    run.state.step = run.cfg.steps(len(x))  # one pass over the images
    loss = validation_loss(y.numpy(), F.linear(x, weight, bias).sigmoid().numpy(),
                           run.train_set.pos_weight())
    return loss, (y_true, scores.numpy())


def cached_features(run, images, stop, bar):
    """Class tokens (N, D) float32 of a dataset, computed once; None if `stop` was requested.

    They are kept beside the cached images, under a hash of all that they depend on.
    """
    config = run.model.config | dict(num_classes=0)
    key = hashlib.sha256(repr((config, run.mean, run.std, images.split_hash,
                               images.table.image_id.tolist())).encode())
    for name, value in run.model.state_dict().items():
        if not name.startswith("head."):
            key.update(value.cpu().numpy().tobytes())
    some = np.linspace(0, len(images) - 1, 64).astype(int)  # phantoms drawn anew keep their names
    key.update(images.batch(some)[0].numpy().tobytes())
    folder = Path(run.cfg.cache_dir or os.environ.get("CXR_CACHE") or "cache")
    folder = folder / f"features-{key.hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, len(images), CHUNK):
        path = folder / f"{start:07}.npy"
        if not path.exists():
            if stop.requested:
                return None
            _, tokens = predict(run.model, images, device=run.on.device, mean=run.mean,
                                std=run.std, features=True,
                                indices=range(start, min(start + CHUNK, len(images))))
            with atomic_write(path) as file:
                np.save(file, tokens)
            if bar.due() and images is run.train_set:
                bar.show(start // run.cfg.batch_size, "features")
        parts.append(np.load(path, allow_pickle=False))
    return np.concatenate(parts)


def fit_logistic(x, y, strengths):
    """Logistic regression of all labels at once; yields (C, weight (L, D), bias (L,)) for each C.

    Each label's solution is that of scikit-learn's LogisticRegression(C=C): the sum of the
    cross-entropy plus ||weight||^2 / 2C. x (N, D) should be standardized; unknown labels of
    y (N, L), NaN, are left out.
    """
    weight, bias = torch.zeros(y.shape[1], x.shape[1]), torch.zeros(y.shape[1])
    for C in strengths:  # from a strong penalty to a weak one, each from the last one's solution
        unit = (1 + 4 / (C * len(x))) ** -0.5  # makes weights as steep as biases, for LBFGS's sake
        parameters = [(weight / unit).requires_grad_(), bias.clone().requires_grad_()]
        optimizer = torch.optim.LBFGS(parameters, max_iter=200, history_size=10,
                                      tolerance_grad=1e-6, line_search_fn="strong_wolfe")

        def closure(C=C, unit=unit, parameters=parameters, optimizer=optimizer):
            optimizer.zero_grad()
            weight, bias = parameters[0] * unit, parameters[1]
            loss = multilabel_loss(F.linear(x, weight, bias), y, torch.ones(y.shape[1]))
            loss = (loss + weight.square().sum() / (2 * C)) / len(x)
            loss.backward()
            return loss

        optimizer.step(closure)
        weight, bias = (parameters[0] * unit).detach(), parameters[1].detach()
        yield C, weight, bias


def knn_scores(train_x, train_y, x, k=20, temperature=0.07):
    """Scores (M, L) of x (M, D) by its nearest of train_x (N, D), as in DINOv2's evaluation.

    Neighbors by cosine similarity s, weighted by exp(s / temperature): the weighted mean of their
    labels train_y (N, L); NaN, an unknown one, has no weight.
    """
    train_x, known = F.normalize(train_x), ~train_y.isnan()
    scores = []
    for queries in F.normalize(x).split(256):
        similarity, nearest = (queries @ train_x.T).topk(min(k, len(train_x)))
        weight = (similarity / temperature).softmax(1)[:, :, None] * known[nearest]  # (M, k, L)
        scores.append((weight * train_y.nan_to_num()[nearest]).sum(1)
                      / weight.sum(1).clamp(min=1e-30))
    return torch.cat(scores)
