#!/bin/sh
# What docs/figures/learning-curves.png is drawn from: sh docs/figures/learning-curves.sh
#
# Two inits of a small transformer on 50 to 1,350 synthetic radiographs, three training runs each.
# Works in demo-curves/ with the environment of demo.sh; run it again, and it goes on where it was.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p demo-curves
cd demo-curves
python=${PYTHON:-../.venv/bin/python}
PYTHONPATH=..
export PYTHONPATH

[ -d datasets/mimic ] || $python -m data.phantom --layout mimic --out datasets/mimic \
    --patients 800 --size 128
[ -d datasets/phantom ] || $python -m data.phantom --layout phantom --out datasets/phantom \
    --patients 1500 --size 128
$python ../pretrain_mimic.py --target phantom --init random --arch vit_micro --image-size 64 \
    --lr 1e-3 --schedule cosine --warmup-epochs 2 --epochs 32 --resume
for seed in 0 1 2; do for images in 50 150 450 1350; do for init in mimic random; do
    $python ../train.py --data phantom --init $init --seed $seed --labels mimic-overlap \
        --train-images $images --arch vit_micro --image-size 64 --lr 5e-4 --schedule cosine \
        --warmup-epochs 2 --epochs 12 --resume
done; done; done
$python ../evaluate.py
$python ../docs/figures/make.py learning-curves
