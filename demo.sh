#!/bin/sh
# The study in miniature, on synthetic radiographs: two CPU cores, no GPU, no data set, minutes.
#
#     sh demo.sh
#
# All that it writes is in .venv/ (the environment) and demo/. Run it again as you like: what is
# there is kept, a stopped training goes on, and the answer is printed anew. To start over, remove
# the folder demo.
set -eu
cd "$(dirname "$0")"
step() { printf '\n--- %s\n' "$*"; }

if [ ! -x .venv/bin/python ]; then
    step "Making a Python environment in .venv"
    python3 -m venv .venv
fi
step "Installing what requirements.txt and requirements-optional.txt list (6 GB, mostly PyTorch)"
# Python compiles what it imports, and keeps that; to compile all of it now would take longer.
export PYTHONDONTWRITEBYTECODE=
.venv/bin/python -m pip install -q --no-compile -r requirements.txt -r requirements-optional.txt

mkdir -p demo
cd demo
python=../.venv/bin/python
PYTHONPATH=..
export PYTHONPATH

step "Drawing synthetic radiographs: a corpus, and one in the layout of MIMIC-CXR to pretrain on"
[ -d datasets/mimic ] || $python -m data.phantom --layout mimic --out datasets/mimic \
    --patients 800 --size 96
[ -d datasets/phantom ] || $python -m data.phantom --layout phantom --out datasets/phantom \
    --patients 400 --size 96

step "Pretraining a small transformer on the second, as the paper does on MIMIC-CXR"
$python ../pretrain_mimic.py --target phantom --init random --arch vit_micro --image-size 64 \
    --lr 1e-3 --schedule cosine --warmup-epochs 2 --epochs 28 --resume

for seed in 0 1 2; do
    for init in mimic random; do
        step "Fine-tuning on the first from: $init, training run $((seed + 1)) of 3"
        $python ../train.py --data phantom --init $init --seed $seed --labels mimic-overlap \
            --limit 200 --arch vit_micro --image-size 64 --lr 5e-4 --schedule cosine \
            --warmup-epochs 2 --epochs 8 --resume
    done
done

step "Exporting the first run to ONNX, and predicting one radiograph with a map of each finding"
$python -m export.to_onnx runs/phantom-mimic
$python -m export.predict runs/phantom-mimic/model.onnx datasets/phantom/images/phantom_00008_2.png \
    --explain maps

step "The answer: does pretraining on radiographs help, and is the difference real?"
$python ../evaluate.py
printf '\nThe report, with figures and tables, is demo/reports/report.html\n'
