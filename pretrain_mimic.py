"""The paper's third initialization: a ViT supervised on MIMIC-CXR, on a target corpus's labels.

    python pretrain_mimic.py --target cxr14                            # weights/mimic-cxr14/best.pt
    python train.py --data cxr14 --init mimic --labels mimic-overlap   # starts from it
    python evaluate.py runs/cxr14-dinov2 runs/cxr14-mimic --labels mimic-overlap --out table5

The training loop, its settings and its run folder are `train.py`'s. MIMIC-CXR's test patients are
in neither its training nor its validation split. With `--cohort paper` or `all` they are drawn (the
80/20 split), with `--cohort official` they are the release's own. The paper does not say what this
model started from ("an approach similar to ImageNet"): any `--init` will do, ImageNet-21k is the
default. Its mean AUC on the labels that ChestX-ray14 shares with MIMIC-CXR is 78.7 % (Table 5).
"""

import sys

import data
from models.init_catalog import INITS
from models.settings import Config, build_parser


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = build_parser(
        Config, __doc__,
        data={"default": "mimic", "choices": ["mimic"], "help": "Trains on MIMIC-CXR."},
        labels={"default": "mimic-overlap", "choices": ["mimic-overlap"],
                "help": "Trains on the labels that the target shares with MIMIC-CXR."},
        init={"default": "imagenet", "choices": [name for name in INITS if name != "mimic"]},
        out={"help": "Writes this run folder (default: weights/mimic-<target>)."})
    labels_of_target = data.labels_shared_with_mimic()
    del labels_of_target["mimic"]
    parser.add_argument("--target", required=True, choices=list(labels_of_target),
                        help="Takes the labels of this corpus, which is to be fine-tuned on.")
    settings = vars(parser.parse_args(argv))
    target = settings.pop("target")
    settings["out"] = settings["out"] or f"weights/mimic-{target}"
    settings["labels"] = list(labels_of_target[target])
    import train  # here, so that a typo is answered before torch loads
    return train.run_safely(Config(**settings))


if __name__ == "__main__":
    sys.exit(main())
