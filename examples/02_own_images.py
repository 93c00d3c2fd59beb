# %% [markdown]
# # Your own folder of images: train, reload, look up neighbours
#
# `python examples/02_own_images.py PATH` learns from the images below PATH (in a notebook: set DIET_IMAGES). Without a
# path it draws 240 images of checks, discs and stripes in random colours, sizes and places, and adds a broken file.
#
# Expect 97 % of the drawn images' nearest neighbours to be of the image's class, against 74 % with the untrained network,
# in a minute of CPU time (torch 2.15, two CPU cores).

# %%
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer, seed_everything
from matplotlib.figure import Figure
from PIL import Image
from torch.nn.functional import normalize

from diet_lightning import DIETDataModule, DIETModule, FiniteGuard, RunFigure, create_backbone
from diet_lightning.evaluation import extract_features

EPOCHS = int(os.environ.get("DIET_EPOCHS", "40"))
RUN_DIR = Path("runs/02_own_images")


# %%
def draw_images(folder: Path, per_class: int = 80):
    rng = np.random.default_rng(0)
    for kind in ("checks", "discs", "stripes"):
        (folder / kind).mkdir()
        for n in range(per_class):
            y, x = np.mgrid[: rng.integers(40, 80), : rng.integers(40, 80)] - rng.uniform(10, 30, (2, 1, 1))
            angle, size = rng.uniform(0, np.pi), rng.uniform(6, 12)
            along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
            stripes, crossing = np.sin(np.pi * along / size) > 0, np.sin(np.pi * across / size) > 0
            shape = {"checks": stripes ^ crossing, "discs": np.hypot(x, y) < 1.5 * size, "stripes": stripes}[kind]
            dark, light = rng.integers(0, 110, 3), rng.integers(145, 256, 3)
            pixels = np.where((shape ^ (n % 2 == 0))[..., None], light, dark) + rng.normal(0, 12, (*x.shape, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / kind / f"{n}.jpg")
    (folder / "discs" / "broken.jpg").write_bytes(b"not an image")


arguments = [] if "ipykernel" in sys.modules else sys.argv[1:]  # a notebook's are the kernel's
path = next(iter(arguments), os.environ.get("DIET_IMAGES"))
if path is None:
    scratch = tempfile.TemporaryDirectory()  # removed when Python ends
    path = scratch.name
    draw_images(Path(path))

# %%
seed_everything(0)
data = DIETDataModule(
    f"folder:{path}",
    image_size=24,  # shorter side, then the central square: enough for shapes; photographs want 224 and a resnet18
    batch_size=64,
    holdout=0.0,  # DIET uses no labels, so nothing needs to be held out
    drop_unreadable=True,
    # what does not matter here: colour, so most of it is jittered away. What does: shape, so crops stay large.
    augmentation={"crop_scale": [0.3, 1.0], "jitter_p": 0.8, "gray_p": 0.5},
)
untrained = create_backbone("resnet8", data.input_shape)
trainer = Trainer(max_epochs=EPOCHS, default_root_dir=RUN_DIR, logger=False, callbacks=[FiniteGuard(), RunFigure()])
trainer.fit(DIETModule("resnet8", lr=1e-2), data)
checkpoint = trainer.checkpoint_callback.best_model_path

# %% [markdown]
# A checkpoint's path is enough to load it. Then each image's four nearest others, by the cosine between embeddings;
# if there are class folders, the share of neighbours of the same class is printed.

# %%
model = DIETModule.load_from_checkpoint(checkpoint, map_location="cpu")
images, _, labels = (torch.cat(field) for field in zip(*data.eval_batches("train"), strict=True))
queries = torch.randperm(len(images))[:1000]
for name, backbone in {"untrained": untrained, "DIET": model.backbone}.items():
    features = normalize(torch.from_numpy(extract_features(backbone, images.split(256))))
    nearest = (features[queries] @ features.T).topk(5).indices[:, 1:]  # without the image itself
    if data.num_classes:
        agreement = (labels[nearest] == labels[queries, None]).float().mean().item()
        print(f"{name}: {agreement:.1%} of the nearest neighbours are of the image's class")

# %%
# each row: an image, then its four nearest neighbours
figure = Figure(figsize=(6, 7), layout="constrained")
for row, axes in enumerate(figure.subplots(6, 5)):
    for index, axis in zip([queries[row], *nearest[row]], axes, strict=True):
        image = images[index] - images[index].min()  # undoes the normalisation approximately, for display
        axis.imshow((image / image.max()).permute(1, 2, 0).numpy())
        axis.set_axis_off()
figure.savefig(RUN_DIR / "neighbours.png", dpi=120)
print(f"Checkpoint: {checkpoint}\nNeighbours: {RUN_DIR / 'neighbours.png'}")
