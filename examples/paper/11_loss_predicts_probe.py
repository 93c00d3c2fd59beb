# %% [markdown]
# # Figure 1: the training loss predicts the quality of the features
#
# A sweep over label smoothing, width of the network and length of training. At one smoothing the run with the smaller
# loss gap has the better features, so a model can be chosen without labels; across smoothings losses are not comparable.
#
# Expect Spearman's correlations of a smaller gap with a better probe of 0.97 and 1.00 on the digits, at smoothing 0.2 and 0.8
# over nine runs each, and 0.37 over all eighteen; on 1,000 images of CIFAR-10 0.89 and 1.00 over six runs each, and 0.46 over all.
# The run of the smallest gap at smoothing 0.8 has the best probe of all, on both. Runs that differ little are not ordered so
# well. Six minutes of CPU time for the digits (torch 2.15, one thread).
#
# `DIET_SIZE=full` trains the paper's kind of networks on CIFAR-10. `DIET_CONFIG`, `DIET_SOURCE` and `DIET_SUBSET` name other
# data, `DIET_EPOCHS` and `DIET_BACKBONES` other runs, in lists with commas; the second of the results was made by
# `DIET_CONFIG=cifar10 DIET_SOURCE=hf:parquet:cifar10 DIET_SUBSET=1000 DIET_EPOCHS=10,30,60
# DIET_BACKBONES=resnet8_w8,resnet8_w16`. After an interruption it resumes with the missing runs.

# %%
import os
from itertools import product
from pathlib import Path

from record import SIZE, Row, record
from sweep import DATA, MINUTES, run_once

from diet_lightning.figures.curves import loss_against_probe
from diet_lightning.figures.style import save_figure
from diet_lightning.runs.comparison import PROBE, agreement_of

SIZES = {
    "tiny": {"smoothings": (0.8,), "backbones": ("resnet8_w8",), "epochs": (1, 2, 3), "batch": 128, "lr": 4e-3},
    "small": {
        "smoothings": (0.2, 0.8),
        "backbones": ("resnet8_w8", "resnet8_w16", "resnet8_w32"),
        "epochs": (5, 15, 40),
        "batch": 128,
        "lr": 4e-3,
    },
    "full": {
        "smoothings": (0.0, 0.4, 0.8),
        "backbones": ("resnet18", "resnet50", "convnext_tiny"),
        "epochs": (100, 300, 1000),
        "batch": 256,
        "lr": 1e-3,
    },
}
SETTINGS = SIZES[SIZE]
if "DIET_EPOCHS" in os.environ:
    SETTINGS["epochs"] = tuple(int(each) for each in os.environ["DIET_EPOCHS"].split(","))
if "DIET_BACKBONES" in os.environ:
    SETTINGS["backbones"] = tuple(os.environ["DIET_BACKBONES"].split(","))
RUN_DIR = Path("runs/11_loss_predicts_probe")

# %%
runs = []
for smoothing, backbone, epochs in product(SETTINGS["smoothings"], SETTINGS["backbones"], SETTINGS["epochs"]):
    options = {
        "model.label_smoothing": smoothing,
        "model.backbone": backbone,
        "model.lr": SETTINGS["lr"],
        "data.batch_size": SETTINGS["batch"],
        "trainer.max_epochs": epochs,
        "trainer.check_val_every_n_epoch": max(1, epochs // 5),
    }
    data = "-".join(value.split(":")[-1] for value in DATA.values())
    runs.append(run_once(RUN_DIR / data / f"{backbone}-smoothing{smoothing}-epochs{epochs}", options))

# %% [markdown]
# Spearman's rank correlation of a smaller loss gap with a higher probe accuracy, over the ends of the runs at each
# smoothing and over all of them.

# %%
agreements = {
    smoothing: agreement_of([run for run in runs if run.group.label_smoothing == smoothing], PROBE)
    for smoothing in SETTINGS["smoothings"]
}
overall = agreement_of(runs, PROBE)
curves = [list(zip(*run.paired(PROBE), strict=True)) for run in runs]
figure = loss_against_probe(
    [losses for losses, _ in curves],
    [accuracies for _, accuracies in curves],
    [run.group.label_smoothing for run in runs],
    [run.record.backbone for run in runs],
    {smoothing: f"Spearman {agreement}" for smoothing, agreement in agreements.items()},
)
save_figure(figure, RUN_DIR / "figure1.png")
rows = []
for name, found in {
    **{f"smoothing {s:g}": a for s, a in agreements.items()},
    "all smoothings together": overall,
}.items():
    print(f"Spearman, {name}: {found}")
    if found.spearman is not None:
        rows.append(Row(f"Spearman's correlation, {name}, {found.runs} runs", found.spearman, found.low, found.high))
best = min((run for run in runs if run.group.label_smoothing == 0.8), key=lambda run: run.loss_gap)
chosen, highest = best.end(PROBE), max(run.end(PROBE) for run in runs)
print(f"The smallest loss gap at smoothing 0.8 has a probe of {chosen:.1%}; the best of all runs has {highest:.1%}")
rows.append(Row("probe of the run chosen without labels (smallest loss gap at smoothing 0.8)", 100 * chosen, unit="%"))
rows.append(Row("probe of the best run", 100 * highest, unit="%"))
count = best.record.num_samples
setting = f"{DATA.get('data.source', DATA['config'])}, N = {count:,}; {SETTINGS}"
print(f"Figure: {RUN_DIR}/figure1.png")
print(f"Results: {record(str(RUN_DIR), setting, rows, sum(MINUTES))}")
