"""Frozen features: what an init is worth, with nothing trained but the head.

Each image goes through the network once, without augmentation; its class token is kept on disk.
`train.py --freeze --augment none` trains the head on the tokens by AdamW. `train.py --probe` fits
it by logistic regression, and asks k nearest neighbors for a second opinion.
"""

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

from models.checkpoint import atomic_write
from models.distributed import max_over_ranks
from models.inference import predict
from models.training import multilabel_loss, validation_loss

CHUNK = 256  # images in a file of features: what a kill can cost
STRENGTHS = [10.0**k for k in range(-6, 1)]  # of the L2 penalty, as scikit-learn's C


class Features(TensorDataset):
    """The class tokens (N, D) of a dataset's images, in their place, and their labels (N, L)."""

    batch = TensorDataset.__getitem__  # of an array of indices

    @torch.inference_mode()
    def scored(self, head):
        """Labels and a head's probabilities of all images, both (N, L) float32 arrays."""
        tokens, labels = self.tensors
        return labels.numpy(), head(tokens.to(head.weight.device)).sigmoid().cpu().numpy()


def compute_features(run, stop, progress):
    """`Features` of the training and validation images of a `train.Run`, the latter perhaps None.

    They are kept beside the cached images, under a hash of all that they depend on, and shared out
    over the processes; `progress` is `data.console.Progress`. None, in all processes, if `stop`
    was requested in one before the end.
    """
    computed = []
    for images in (run.train_set, run.val_set) if run.val_set else (run.train_set,):
        folder = Path(run.cfg.cache_dir or os.environ.get("CXR_CACHE") or "cache")
        folder = folder / f"features-{features_hash(run, images)[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        parts = {folder / f"{start:07}.npy": range(start, min(start + CHUNK, len(images)))
                 for start in range(0, len(images), CHUNK)}
        # First this process's share, then what is not on its disk: another machine's share.
        for share in ([*parts][run.on.rank::run.on.world], parts):
            bar = progress("features", len(share), unit=f"x {CHUNK} images",
                           seconds=run.cfg.log_seconds, enabled=run.on.rank == 0)
            for path in bar.over(share):
                if not path.exists() and not stop.requested:
                    _, tokens = predict(run.model, images, indices=parts[path], features=True,
                                        device=run.on.device, mean=run.mean, std=run.std)
                    with atomic_write(path) as file:
                        np.save(file, tokens)
            if max_over_ranks(run.on.cpu_group, int(stop.requested)):
                return None
        tokens = np.concatenate([np.load(path, allow_pickle=False) for path in parts])
        computed.append(Features(torch.from_numpy(tokens), torch.from_numpy(images.table.y)))
    return computed if run.val_set else (*computed, None)


def features_hash(run, images):
    """Hash of all that a dataset's class tokens depend on, in hexadecimal."""
    config = run.model.config | dict(num_classes=0)
    key = hashlib.sha256(repr((config, run.mean, run.std, images.split_hash,
                               images.table.image_id.tolist())).encode())
    for name, value in run.model.state_dict().items():
        if not name.startswith("head."):
            key.update(value.cpu().numpy().tobytes())
    some = np.linspace(0, len(images) - 1, 64).astype(int)  # phantoms drawn anew keep their names
    key.update(images.batch(some)[0].numpy().tobytes())
    return key.hexdigest()


def fit_head(run, train_features, val_features, auroc):
    """Fit a `train.Run`'s head, the L2 penalty chosen by validation `auroc`; the training loss."""
    (x, y), (held_out, y_true) = train_features.tensors, val_features.tensors

    def mean_auroc(scores):
        per_label = auroc(y_true.numpy(), scores.numpy())
        defined = per_label[np.isfinite(per_label)]
        return float(defined.mean()) if len(defined) else np.nan

    began, fits = time.monotonic(), []
    center, scale = x.mean(0), x.std(0, correction=0).clamp(min=1e-6)
    for C, weight, bias in fit_logistic((x - center) / scale, y, STRENGTHS):
        weight = weight / scale  # for the tokens as the network gives them
        bias = bias - weight @ center
        scores = F.linear(held_out, weight, bias).sigmoid()
        fits.append((mean_auroc(scores), C, weight, bias))
    best, C, weight, bias = max(fits, key=lambda fit: np.nan_to_num(fit[0]))
    run.model.head.load_state_dict(dict(weight=weight, bias=bias))
    knn = mean_auroc(knn_scores(x, y, held_out))
    run.print(f"linear probe: C {C:g}, fitted in {time.monotonic() - began:.1f} s, validation AUC "
              f"{best:.4f}; 20 nearest neighbors: {knn:.4f}")
    run.record |= dict(probe_C=C, probe_knn_auroc=knn)
    run.state.step = run.cfg.steps(len(x))  # one pass over the images
    return validation_loss(y.numpy(), F.linear(x, weight, bias).sigmoid().numpy(),
                           run.train_set.pos_weight())


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
