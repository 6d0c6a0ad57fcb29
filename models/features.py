"""Frozen features, and the logistic regression of labels on them.

Each image goes through the network once, without augmentation; its class token is kept on disk,
under a hash of all that it depends on, so that another head, seed or size costs no second pass.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from data.console import Progress
from data.files import atomic_write
from models.inference import predict
from models.run_lock import StopRequest
from models.training import LabeledImages, multilabel_loss
from models.vit import VisionTransformer

CHUNK = 256  # images in a file of features: what a kill can cost


@dataclass(frozen=True)
class Encoder:
    """A network that gives class tokens, and how its input is normalized."""

    model: VisionTransformer
    mean: list[float] | None
    std: list[float] | None
    device: torch.device

    def tokens(self, images: LabeledImages, indices: npt.NDArray[np.int64]) -> npt.NDArray:
        """The class tokens (N, D) of the images of these indices."""
        _, tokens = predict(self.model, images, indices=indices, features=True,
                            device=self.device, mean=self.mean, std=self.std)
        return tokens


def compute_features(encoder: Encoder, images: LabeledImages, cache: Path, *, stop: StopRequest,
                     log_seconds: float = 60.0) -> npt.NDArray[np.float32] | None:
    """The class tokens (N, D) of all images, those that are on disk read from there.

    None if `stop` was requested before the end; what was computed until then is kept.
    """
    folder = cache / f"features-{features_hash(encoder, images)[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(images), CHUNK)
    paths = [folder / f"{start:07}.npy" for start in starts]
    bar = Progress("features", len(paths), unit=f"x {CHUNK} images", seconds=log_seconds)
    for start, path in bar.over(list(zip(starts, paths))):
        if stop.requested:
            return None
        if not path.exists():
            tokens = encoder.tokens(images, np.arange(start, min(start + CHUNK, len(images))))
            with atomic_write(path) as file:
                np.save(file, tokens)
    return np.concatenate([np.load(path, allow_pickle=False) for path in paths])


def features_hash(encoder: Encoder, images: LabeledImages) -> str:
    """Hash of all that a dataset's class tokens depend on, in hexadecimal."""
    shape = encoder.model.config | {"num_classes": 0}
    digest = hashlib.sha256(repr((shape, encoder.mean, encoder.std, images.split_hash,
                                  images.table.image_id.tolist())).encode())
    for name, value in encoder.model.state_dict().items():
        if not name.startswith("head."):
            digest.update(value.cpu().numpy().tobytes())
    # Images may be drawn or downloaded anew under the same names: a few of them are looked at.
    sample = np.linspace(0, len(images) - 1, 64).astype(int)
    digest.update(images.batch(sample)[0].numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class LinearFit:
    """A logistic regression of every label."""

    strength: float  # of the L2 penalty, as scikit-learn's C
    weight: torch.Tensor  # (L, D)
    bias: torch.Tensor  # (L,)

    def scores(self, tokens: torch.Tensor) -> torch.Tensor:
        """The probabilities (N, L) of class tokens (N, D)."""
        return F.linear(tokens, self.weight, self.bias).sigmoid()


def fit_heads(tokens: torch.Tensor, labels: torch.Tensor,
              strengths: Sequence[float]) -> Iterator[LinearFit]:
    """Fit `fit_logistic` on standardized tokens (N, D); the fits are for the tokens as they are."""
    center = tokens.mean(0)
    scale = tokens.std(0, correction=0).clamp(min=1e-6)
    for fit in fit_logistic((tokens - center) / scale, labels, strengths):
        weight = fit.weight / scale
        yield LinearFit(fit.strength, weight, fit.bias - weight @ center)


def fit_logistic(x: torch.Tensor, y: torch.Tensor,
                 strengths: Iterable[float]) -> Iterator[LinearFit]:
    """Logistic regression of all labels at once, for one strength of the penalty after the other.

    Each label's solution is that of scikit-learn's LogisticRegression(C=strength): the sum of the
    cross-entropy plus ||weight||^2 / 2C. x (N, D) should be standardized; unknown labels of
    y (N, L), NaN, are left out.
    """
    fit = LinearFit(0.0, torch.zeros(y.shape[1], x.shape[1]), torch.zeros(y.shape[1]))
    for strength in strengths:  # from a strong penalty to a weak one, each from the last solution
        fit = fit_one(x, y, strength, fit)
        yield fit


def fit_one(x: torch.Tensor, y: torch.Tensor, strength: float, start: LinearFit) -> LinearFit:
    """The logistic regression of one strength, found from another fit by LBFGS."""
    n_images, n_labels = y.shape
    unit = (1 + 4 / (strength * n_images)) ** -0.5  # makes weights as steep as biases
    scaled = (start.weight / unit).requires_grad_()
    bias = start.bias.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([scaled, bias], max_iter=200, history_size=10,
                                  tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        weight = scaled * unit
        loss = multilabel_loss(F.linear(x, weight, bias), y, torch.ones(n_labels))
        loss = (loss + weight.square().sum() / (2 * strength)) / n_images
        loss.backward()
        return loss

    optimizer.step(closure)
    return LinearFit(strength, (scaled * unit).detach(), bias.detach())
