"""The paper's third initialization: a ViT supervised on MIMIC-CXR, on a target corpus's labels.

    python pretrain_mimic.py --target cxr14                            # weights/mimic-cxr14/best.pt
    python train.py --data cxr14 --init mimic --labels mimic-overlap   # starts from it
    python evaluate.py runs/cxr14-dinov2 runs/cxr14-mimic --labels mimic-overlap --out table5

The training loop, its settings and its run folder are `train.py`'s. MIMIC-CXR's test patients are
in neither its training nor its validation split: with `--cohort paper` or `all` those of the drawn
80/20 split, with `--cohort official` the release's own. The paper does not say what this model
started from ("an approach similar to ImageNet"): any `--init` will do, ImageNet-21k is the default.
Its mean AUC on the labels that ChestX-ray14 shares with MIMIC-CXR is 78.7 % (Table 5).
"""

import sys

from data.console import Parser
from data.labels import MIMIC_OVERLAP
from models.init_catalog import INITS
from models.settings import Config, build_parser


def main(argv=None):
    """The command line; returns the exit code."""
    parser = build_parser(
        __doc__, Parser, data=dict(default="mimic", choices=["mimic"]),
        labels=dict(default="mimic-overlap", choices=["mimic-overlap"],
                    help="those that the target shares with MIMIC-CXR"),
        init=dict(default="imagenet", choices=[name for name in INITS if name != "mimic"]),
        out=dict(help="run folder (default: weights/mimic-<target>)"))
    parser.add_argument("--target", required=True,
                        choices=[corpus for corpus in MIMIC_OVERLAP if corpus != "mimic"],
                        help="the corpus that will be fine-tuned on: decides the labels")
    args = vars(parser.parse_args(argv))
    import train  # here, so that a typo is answered before torch loads
    target = args.pop("target")
    args["out"] = args["out"] or f"weights/mimic-{target}"
    args["labels"] = list(MIMIC_OVERLAP[target])
    return train.run(Config(**args))


if __name__ == "__main__":
    sys.exit(main())
