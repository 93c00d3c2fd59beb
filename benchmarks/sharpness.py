"""What random crops lose where images are stored smaller than their files.

For regions of 500×375 pixels of the photographs in `--pictures`, crops of the stored image are compared with crops of the region itself,
with the same parameters: `psnr` in dB, and `detail`, the mean squared Laplacian as a fraction of that of the region's crops.
`bytes` are those of the stored image relative to a square of the training size. Prints one JSON line per factor, which is the shorter
side of the stored image in sides of the network's input.

    python benchmarks/sharpness.py --pictures site-packages/skimage/data --size 224
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from crops import photographs
from head import hardware
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from diet_lightning.transforms.geometry import RandomCrops

LAPLACIAN = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]


def detail(crops: Tensor) -> float:
    return float(F.conv2d(crops.float().mean(dim=1, keepdim=True), LAPLACIAN).square().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--factors", type=float, nargs="+", default=[1.0, 1.25, 1.5, 2.0])
    args = parser.parse_args()
    random, pictures = np.random.default_rng(0), photographs(args.pictures)
    regions = []
    for n in range(args.count):
        image = pictures[n % len(pictures)]
        width = min(image.width, image.height * 4 / 3)
        x, y = random.uniform(0, image.width - width), random.uniform(0, image.height - width * 3 / 4)
        cut = image.resize((500, 375), box=(x, y, x + width, y + width * 3 / 4))
        regions.append(torch.from_numpy(np.array(cut)).permute(2, 0, 1))
    crops = RandomCrops((0.08, 1.0), (3 / 4, 4 / 3), 0.5, (args.size, args.size)).at((0, 0, 0), args.count)
    expected = torch.stack([crops.apply(n, image, (375, 500)) for n, image in enumerate(regions)])
    for factor in args.factors:
        side = min(375, round(factor * args.size))
        stored = [tv.resize(image, [side], antialias=True) for image in regions]
        found = torch.stack([crops.apply(n, image, (375, 500)) for n, image in enumerate(stored)])
        error = (found.double() - expected.double()).square().mean()
        line = {
            "factor": factor,
            "size": args.size,
            "count": args.count,
            "psnr": round(10 * math.log10(255**2 / float(error)), 1) if error > 0 else None,
            "detail": round(detail(found) / detail(expected), 3),
            "bytes": round(stored[0].nbytes / (3 * args.size**2), 2),
        }
        print(json.dumps({**line, "hardware": hardware(torch.device("cpu"))}))


if __name__ == "__main__":
    main()
