"""The paper's third initialisation: a ViT supervised on MIMIC-CXR, on the labels it shares with a target corpus.

    python pretrain_mimic.py --target cxr14                                       # writes weights/mimic-cxr14/best.pt
    python train.py --data cxr14 --init mimic --labels mimic-overlap              # takes it from there
    python evaluate.py runs/cxr14-dinov2 runs/cxr14-mimic --labels mimic-overlap --out reports/table5

The training loop, its settings and its run folder are `train.py`'s; MIMIC-CXR's test patients are in neither its training
nor its validation split. The test patients are those of the chosen cohort's split: with `--cohort paper` or `all` the
drawn 80/20's, with `--cohort official` the release's own. The paper does not say what this model itself started from
("an approach similar to ImageNet"): any `--init` is taken, ImageNet-21k by default. Its mean AUC on ChestX-ray14's
overlap is 78.7 % (Table 5).
"""

import sys
from pathlib import Path

import train
from data.labels import MIMIC_OVERLAP


def build_parser():
    parser = train.build_parser(
        __doc__, data=dict(default="mimic", choices=["mimic"]),
        labels=dict(default="mimic-overlap", choices=["mimic-overlap"],
                    help="those that the target shares with MIMIC-CXR"),
        init=dict(default="imagenet", choices=["dinov2", "imagenet", "random"]),
        out=dict(help="run folder (default: weights/mimic-<target>)"))
    parser.add_argument("--target", required=True, choices=[name for name in MIMIC_OVERLAP if name != "mimic"],
                        help="the corpus that will be fine-tuned on: decides the labels")
    return parser


def main(argv=None):
    args = vars(build_parser().parse_args(argv))
    target = args.pop("target")
    args["out"] = args["out"] or str(Path("weights") / f"mimic-{target}")
    args["labels"] = list(MIMIC_OVERLAP[target])
    return train.run(train.Config(**args))


if __name__ == "__main__":
    sys.exit(main())
