"""Measures whether an audit finds planted errors: 1 % near-duplicates and 1 % flipped labels, in digits or CIFAR-10.

A near-duplicate is a crop of 85 to 100 % of the side, with its brightness changed by up to 20 %, encoded as JPEG of quality
70 to 95. DIET is trained on all samples without labels. Then the search of `diet audit` is run on DIET's embeddings, on raw
pixels and on an untrained backbone's embeddings. Prints one JSON line for each, with

- `found`, `precision`, `recall`: number of reported pairs, and the search's precision and recall on the planted ones;
- `alone_precision`, `alone_recall`: the same without the p-values of the thumbnails;
- `at_planted`: precision of the pairs with the smallest p-values, as many as were planted;
- `cosine_at_planted`: precision of as many pairs with the largest cosine similarity;
- `flips_at_half_recall`: precision of the label issues at a recall of one half.

    python benchmarks/audit.py --epochs 150 --seed 3
    python benchmarks/audit.py --parquet train.parquet --count 10000 --epochs 20
"""

from __future__ import annotations

import argparse
import io
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer, seed_everything
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from diet_lightning import DIETDataModule, DIETModule, OnlineLinearProbe, create_backbone
from diet_lightning.audit.label_issues import label_issues
from diet_lightning.audit.near_duplicates import near_duplicates, neighbourhoods, thumbnails, weak_augmentations
from diet_lightning.evaluation.neighbours import nearest_neighbours

SHARE = 0.01


def weak_copy(image: np.ndarray[Any, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    height, width = image.shape[:2]
    scale = rng.uniform(0.85, 1.0)
    crop = round(height * scale), round(width * scale)
    top, left = rng.integers(0, height - crop[0] + 1), rng.integers(0, width - crop[1] + 1)
    box = (left, top, left + crop[1], top + crop[0])
    picture = Image.fromarray(image).crop(box).resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.clip(np.asarray(picture).astype(float) * rng.uniform(0.8, 1.2), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=int(rng.integers(70, 96)))
    return np.asarray(Image.open(io.BytesIO(stream.getvalue())))


def plant(images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], seed: int) -> tuple[Any, ...]:
    """Shuffled images and labels with copies and flipped labels; the planted pairs, and the indices of the flipped labels."""
    rng = np.random.default_rng(seed)
    count, extra, classes = len(images), round(SHARE * len(images)), int(labels.max()) + 1
    originals = rng.choice(count, extra, replace=False)
    copies = np.stack([weak_copy(images[n], rng) for n in originals])
    images, labels = np.concatenate([images, copies]), np.concatenate([labels, labels[originals]])
    order = rng.permutation(count + extra)
    place = np.argsort(order)
    ends = [sorted((int(place[n]), int(place[count + k]))) for k, n in enumerate(originals)]
    images, labels = images[order], labels[order]
    flipped = rng.choice(count + extra, extra, replace=False)
    for n in flipped:
        labels[n] = (labels[n] + rng.integers(1, classes)) % classes
    return images, labels, {tuple(pair) for pair in ends}, set(flipped.tolist())


def load(args: argparse.Namespace) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    if args.parquet is None:
        digits = load_digits()
        return (digits.images * (255 / 16)).round().astype(np.uint8), digits.target
    import pyarrow.parquet as pq

    table = pq.read_table(args.parquet).slice(0, args.count).to_pydict()
    files = table["img"] if "img" in table else table["image"]
    images = [np.asarray(Image.open(io.BytesIO(file["bytes"])).convert("RGB")) for file in files]
    return np.stack(images), np.array(table["label"])


def precision_at_half_recall(score: np.ndarray[Any, Any], flipped: set[int]) -> float:
    """Precision of the samples with the highest scores, as many as hold half of the flipped labels."""
    hits = np.array([n in flipped for n in np.argsort(-score, kind="stable").tolist()])
    half = int(np.searchsorted(hits.cumsum(), len(flipped) / 2)) + 1
    return float(hits[:half].mean())


@torch.inference_mode()
def search(network: nn.Module, data: DIETDataModule, labels: Tensor, pairs: set[Any], flipped: set[int]) -> Any:
    network.eval()
    features = torch.cat([network(batch.input) for batch in data.eval_batches("train")])

    def views(look: Callable[[Tensor], Tensor]) -> Iterator[Any]:
        for batch in data.raw_batches("train"):
            yield batch.index, (look(data.network_inputs(view)) for view in weak_augmentations(batch.input))

    neighbours = neighbourhoods(features, views(network))
    small = torch.cat([thumbnails(batch.input) for batch in data.eval_batches("train")])
    pixels = neighbourhoods(small, views(thumbnails))
    alone, found = near_duplicates(neighbours), near_duplicates(neighbours, pixels=pixels)
    every = near_duplicates(neighbours, 0.999999, pixels)  # all, sorted by p-value
    smallest = [tuple(pair) for pair in every.pairs[: len(pairs)].tolist()]
    hits, alone_hits = (len({tuple(pair) for pair in each.pairs.tolist()} & pairs) for each in (found, alone))
    similarity, index = nearest_neighbours(features, features, 4, own=torch.arange(len(features)))
    ends = torch.arange(len(features))[:, None].expand_as(index)
    cosine = {
        tuple(sorted(pair)): value for *pair, value in torch.stack([ends, index, similarity], -1).flatten(0, 1).tolist()
    }
    alike = sorted(cosine, key=lambda pair: -cosine[pair])[: len(pairs)]
    return {
        "found": len(found.pairs),
        "precision": hits / max(1, len(found.pairs)),
        "recall": hits / len(pairs),
        "alone_precision": alone_hits / max(1, len(alone.pairs)),
        "alone_recall": alone_hits / len(pairs),
        "at_planted": sum(pair in pairs for pair in smallest) / len(pairs),
        "cosine_at_planted": sum(tuple(map(int, pair)) in pairs for pair in alike) / len(pairs),
        "flips_at_half_recall": precision_at_half_recall(label_issues(features, labels).score, flipped),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parquet", help="CIFAR-10 in Hugging Face's format; the digits if not given")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--warmup-epochs", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path, help="file of the trained weights: loaded if it exists, else written")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    images, labels, pairs, flipped = plant(*load(args), args.seed)
    inputs = torch.from_numpy(images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2).copy())
    given = torch.from_numpy(labels.astype(np.int64))
    options: dict[str, Any] = {"batch_size": 256}
    if args.parquet is None:
        options = {"batch_size": 128, "augmentation": {"crop_scale": [0.5, 1.0], "flip": 0.0}}
    seed_everything(args.seed)
    data = DIETDataModule.from_datasets(TensorDataset(inputs, given), seed=args.seed, **options)
    shape = list(data.input_shape)
    module = DIETModule("resnet8", data.num_samples, shape, lr=4e-3, warmup_epochs=args.warmup_epochs)
    if args.weights is not None and args.weights.exists():
        module.load_state_dict(torch.load(args.weights, weights_only=True))
    else:
        Trainer(
            accelerator="cpu",
            max_epochs=args.epochs,
            callbacks=[OnlineLinearProbe()],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        ).fit(module, data)
        if args.weights is not None:
            torch.save(module.state_dict(), args.weights)
    torch.manual_seed(args.seed)
    raw = nn.Flatten() if args.parquet is None else nn.Sequential(nn.AvgPool2d(2), nn.Flatten())
    networks = {"raw": raw, "untrained": create_backbone("resnet8", tuple(shape)), "diet": module.backbone}
    for name, network in networks.items():
        line: dict[str, Any] = {"features": name, "data": "cifar10" if args.parquet else "digits"}
        line |= {"samples": data.num_samples, "planted": len(pairs), "epochs": args.epochs, "seed": args.seed}
        measured = search(network, data, given, pairs, flipped)
        line |= {key: value if isinstance(value, int) else round(value, 3) for key, value in measured.items()}
        print(json.dumps({**line, "torch": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()
