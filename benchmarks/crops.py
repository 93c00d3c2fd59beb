"""Linear probe after training on random crops of whole 4:3 pictures, against crops of their central squares.

Makes `--count` pictures of 160×120 pixels, each a random region of one of the photographs in `--pictures`; the photograph is the
class. Regions of training come from the left 60 % of a photograph, those of validation from the rest. `whole` trains on the
pictures as they are, `square` on their central squares at the training size, which is what random crops would see if images
were cut before they are cropped. Both are evaluated on the central squares of the same pictures. Prints one JSON line per run.

    python benchmarks/crops.py --pictures site-packages/skimage/data --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from head import hardware
from lightning.pytorch import Trainer
from PIL import Image

from diet_lightning import DIETDataModule, DIETModule, OnlineKNN, OnlineLinearProbe
from diet_lightning.transforms.geometry import Fit

WIDTH, HEIGHT = 160, 120


def photographs(folder: Path) -> list[Image.Image]:
    found = []
    for path in sorted(folder.rglob("*.*")):
        if path.suffix in (".png", ".jpg", ".jpeg"):
            with Image.open(path) as image:
                if image.mode in ("RGB", "RGBA") and min(image.size) >= 300:
                    found.append(image.convert("RGB"))
    return found


def region(image: Image.Image, random: np.random.Generator, low: float, high: float) -> Image.Image:
    """A random region of 4:3 between two fractions of the width."""
    left, right = low * image.width, high * image.width
    width = min(right - left, image.height * WIDTH / HEIGHT) * random.uniform(0.5, 0.9)
    height = width * HEIGHT / WIDTH
    x, y = random.uniform(left, right - width), random.uniform(0, image.height - height)
    return image.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box=(x, y, x + width, y + height))


def write(folder: Path, pictures: list[Image.Image], count: int, side: int | None) -> None:
    random = np.random.default_rng(0)
    for split, number, low, high in (("train", count, 0.0, 0.6), ("val", count // 2, 0.6, 1.0)):
        for n in range(number):
            label = n % len(pictures)
            image = region(pictures[label], random, low, high)
            if side is not None:
                pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
                image = Image.fromarray(Fit((side, side)).batch(pixels).permute(1, 2, 0).numpy())
            path = folder / split / f"{label:02}" / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--backbone", default="resnet8_w32")
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    pictures = photographs(args.pictures)
    with tempfile.TemporaryDirectory() as folder:
        for case, side in (("whole", None), ("square", args.size)):
            write(Path(folder) / case, pictures, args.count, side)
        for seed in args.seeds:
            for case in ("whole", "square"):
                torch.manual_seed(seed)
                data = DIETDataModule(f"folder:{folder}/{case}", image_size=args.size, seed=seed, batch_size=128)
                trainer = Trainer(
                    accelerator="cpu",
                    max_epochs=args.epochs,
                    precision=args.precision,
                    callbacks=[OnlineLinearProbe(), OnlineKNN()],
                    logger=False,
                    enable_checkpointing=False,
                    enable_progress_bar=False,
                    enable_model_summary=False,
                )
                trainer.fit(DIETModule(args.backbone), data)
                metrics = {name: round(float(value), 4) for name, value in trainer.callback_metrics.items()}
                described = {
                    name: str(value) for name, value in vars(args).items() if name not in ("pictures", "seeds")
                }
                line = {"case": case, "seed": seed, "classes": len(pictures), **described, **metrics}
                print(json.dumps({**line, "hardware": hardware(torch.device("cpu"))}), flush=True)


if __name__ == "__main__":
    main()
