"""Images per second of the augmentation alone: of this package, torchvision v2's on single images, and kornia's on batches.

From uint8 images to normalised floats, with the paper's settings. torchvision gets single PIL images or tensors, as in the
workers of a loader; `ratio` is images per second relative to the faster of these two. The cases take turns, so that other
work on the machine slows all of them. Prints one JSON line per case.

    python benchmarks/augment.py --threads 1 --size 32 --strength 1 3
    python benchmarks/augment.py --threads 1 --size 224 --strength 1 --batch-size 32
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable

import torch
import torchvision
from head import hardware
from torch import Tensor
from torchvision.transforms import v2

from diet_lightning.data.statistics import IMAGENET_MEAN, IMAGENET_STD
from diet_lightning.transforms.pipeline import InputPipeline


def torchvisions(size: int, strength: int) -> v2.Compose:
    """The augmentation as users of torchvision write it."""
    steps: list[object] = [v2.RandomResizedCrop(size, (0.08, 1.0), antialias=True), v2.RandomHorizontalFlip()]
    if strength >= 2:
        steps += [v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.2)], 0.3), v2.RandomGrayscale(0.2)]
    if strength >= 3:
        steps.append(v2.RandomApply([v2.GaussianBlur(3, (1.0, 2.0))], 0.2))
    steps += [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    if strength >= 3:
        steps.append(v2.RandomErasing(0.25))
    return v2.Compose(steps)


def kornias(size: int, strength: int) -> Callable[[Tensor], Tensor]:
    import kornia.augmentation as K

    steps = [K.RandomResizedCrop((size, size), (0.08, 1.0)), K.RandomHorizontalFlip()]
    if strength >= 2:
        steps += [K.ColorJitter(0.4, 0.4, 0.4, 0.2, p=0.3), K.RandomGrayscale(p=0.2)]
    if strength >= 3:
        steps.append(K.RandomGaussianBlur((3, 3), (1.0, 2.0), p=0.2))
    steps.append(K.Normalize(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)))
    if strength >= 3:
        steps.append(K.RandomErasing((0.02, 0.33), (0.3, 3.3), p=0.25))
    composed = torch.nn.Sequential(*steps)
    return lambda images: composed(images.float() / 255.0)


def cases(
    size: int, strength: int, batch: int, device: torch.device, compiled: bool
) -> dict[str, Callable[[], object]]:
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    on_device = images.to(device)
    step = 0

    def ours(pipeline: InputPipeline) -> Callable[[], object]:
        def run() -> object:
            nonlocal step
            step += 1
            return pipeline.augmented(on_device, (0, 0, step), 1, 0)

        return run

    def pipeline(compiled: bool) -> InputPipeline:
        return InputPipeline(images[0], None, strength, {"compiled": compiled}, IMAGENET_MEAN, IMAGENET_STD)

    transform = torchvisions(size, strength)
    pictures = [v2.functional.to_pil_image(image) for image in images]
    found: dict[str, Callable[[], object]] = {
        "ours": ours(pipeline(False)),
        "torchvision_v2_pil": lambda: torch.stack([transform(picture) for picture in pictures]),
        "torchvision_v2_tensor": lambda: torch.stack([transform(image) for image in images]),
    }
    if compiled:
        found["ours_compiled"] = ours(pipeline(True))
    if importlib.util.find_spec("kornia"):
        theirs = kornias(size, strength)
        found["kornia"] = lambda: theirs(on_device)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--strength", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="also measure ours under torch.compile")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    for strength in args.strength:
        steps = cases(args.size, strength, args.batch_size, device, args.compile)
        seconds: dict[str, list[float]] = {case: [] for case in steps}
        for repeat in range(args.repeats + 2):
            for case, step in steps.items():
                start = time.perf_counter()
                step()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if repeat >= 2:  # the first two are warm-up
                    seconds[case].append(time.perf_counter() - start)
        rate = {case: args.batch_size / statistics.median(each) for case, each in seconds.items()}
        base = max(rate["torchvision_v2_pil"], rate["torchvision_v2_tensor"])
        for case in steps:
            line = {
                "case": case,
                "size": args.size,
                "strength": strength,
                "batch_size": args.batch_size,
                "images_per_s": round(rate[case]),
                "ratio": round(rate[case] / base, 2),
                "device": device.type,
                "hardware": hardware(device),
                "torch": torch.__version__,
                "torchvision": torchvision.__version__,
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
