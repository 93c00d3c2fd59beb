"""Images of any size brought to one: compared with torchvision's transforms, and the same from every storage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from diet_lightning import DIETDataModule
from diet_lightning.data.indexed import StepIndices
from diet_lightning.transforms.geometry import (
    FLIP,
    LONG_SIDES,
    NUM_NUMBERS,
    STORED,
    Fit,
    Geometry,
    RandomCrops,
    Whole,
    covering_size,
    random_numbers,
)
from diet_lightning.transforms.ragged import RaggedImages, join_images

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)
SHAPES = {"landscape": (30, 40), "portrait": (41, 29), "tiny": (3, 5), "square": (36, 36), "huge": (600, 800)}
SIDE = 24


def picture(height, width, seed=0):
    """A smooth picture with its own colours at every place."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.integers(0, 256, (1, 3, 6, 7), dtype=np.uint8))
    return tv.resize(coarse, [height, width], interpolation=v2.InterpolationMode.BICUBIC, antialias=True)[0]


def crops(count, position=(0, 0, 0), **options):
    return RandomCrops((0.08, 1.0), (3 / 4, 4 / 3), 0.5, (SIDE, SIDE), **options).at(position, count)


# -- random crops ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SHAPES.values(), ids=SHAPES)
def test_a_crop_is_that_of_torchvision_with_the_same_parameters(size):
    image, geometry = picture(*size), crops(32)
    for n in range(32):
        top, left, height, width = (int(value) for value in geometry._box(n, size))
        expected = tv.resized_crop(image.double(), top, left, height, width, [SIDE, SIDE], antialias=True)
        expected = tv.horizontal_flip(expected) if geometry.numbers[FLIP, n] < 0.5 else expected
        # two passes, each rounded to bytes (half a level), with weights of 16 bits (255 · 2 / 2¹⁵ of a level)
        assert (geometry.apply(n, image, size).double() - expected).abs().max() <= 1.0 + 2 * 255 * 2 / 2**15


@pytest.mark.parametrize("size", SHAPES.values(), ids=SHAPES)
def test_boxes_have_torchvisions_distribution(size):
    draws = 4000
    geometry, image = crops(draws), torch.empty(3, *size)
    ours = np.array([geometry._box(n, size) for n in range(draws)])
    torch.manual_seed(0)
    theirs = np.array([v2.RandomResizedCrop(SIDE).make_params([image])["height"] for _ in range(draws)])
    # the largest distance of two empirical distributions, at a p-value of 1e-6 (Smirnov)
    grid = np.unique(np.concatenate([ours[:, 2], theirs]))
    gap = [abs((ours[:, 2] <= value).mean() - (theirs <= value).mean()) for value in grid]
    assert max(gap) < np.sqrt(np.log(2e6) / draws)
    assert (ours[:, 0] + ours[:, 2] <= size[0]).all()
    assert (ours[:, 1] + ours[:, 3] <= size[1]).all()


@quick
@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 5), st.integers(0, 5))
def test_the_ranks_share_the_draws_of_one_process(world, count, epoch, step):
    whole = crops(count * world, (3, epoch, step))
    for rank in range(world):
        part = crops(count, (3, epoch, step), world=world, rank=rank)
        for n in range(count):
            assert (part._box(n, (300, 400)) == whole._box(n * world + rank, (300, 400))).all()


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_reduced_image_is_cropped_at_the_same_place(scale):
    size = (scale * 300, scale * 400)
    image, geometry = picture(*size), crops(16)
    reduced = image.double().unflatten(1, (-1, scale)).unflatten(3, (-1, scale)).mean((2, 4)).round().byte()
    for n in range(16):
        whole, part = geometry.apply(n, image, size).double(), geometry.apply(n, reduced, size).double()
        # the box is rounded by half a reduced pixel at most, which is half an output pixel, as crops stay larger than that
        slope = max(whole.diff(dim=d).abs().max() for d in (1, 2))
        assert geometry.reduction(n, size) > 1.0
        assert (whole - part).abs().max() <= 2.0 + 1.5 * slope


def test_large_jpegs_are_decoded_no_smaller_than_the_crop_needs(tmp_path):
    size = (1200, 1600)
    for n in range(2):
        Image.fromarray(picture(*size, seed=n).permute(1, 2, 0).numpy()).save(tmp_path / f"{n}.jpg", quality=95)
    data = DIETDataModule(f"folder:{tmp_path}", image_size=SIDE, in_memory=False, strength=1, holdout=0.0)
    data.setup()
    files, geometry = data._splits["train"].dataset, crops(8)
    for n in range(8):
        original, _ = files.items[0]
        exact = geometry.apply(n, tv.pil_to_tensor(Image.open(original)), size).double()
        found, _ = files.read(0, geometry, n)
        slope = max(exact.diff(dim=d).abs().max() for d in (1, 2))
        assert (found.double() - exact).abs().max() <= 4.0 + 1.5 * slope  # as above, and JPEG's own rounding


def test_a_geometry_gets_the_size_before_the_reduction_as_the_image_is_looked_at(tmp_path):
    class Quarter(Geometry):
        def reduction(self, n, size):
            return 4.9

        def apply(self, n, image, size):
            return torch.tensor([*size, *image.shape[1:]])[None, None].byte()

    plain = Image.fromarray(picture(120, 160).permute(1, 2, 0).numpy())
    plain.save(tmp_path / "0.jpg")
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    plain.save(tmp_path / "1.jpg", exif=turned)
    plain.save(tmp_path / "2.png")
    data = DIETDataModule(f"folder:{tmp_path}", image_size=SIDE, in_memory=False, holdout=0.0)
    data.setup()
    files = data._splits["train"].dataset
    sizes = [files.read(n, Quarter())[0].flatten().tolist() for n in range(3)]
    assert sizes == [[120, 160, 30, 40], [160, 120, 40, 30], [120, 160, 120, 160]]


# -- what is stored, and evaluation ------------------------------------------------------------------------------------


@quick
@given(st.integers(1, 900), st.integers(1, 900), st.integers(1, 40))
def test_what_is_stored_keeps_the_aspect_ratio_and_is_not_enlarged(height, width, side):
    whole = Whole((side, side))
    stored = whole.stored_size((height, width))
    short, long = sorted((height, width))
    assert min(stored) == min(short, round(STORED * side))
    assert max(stored) <= LONG_SIDES * min(stored) + 1
    if long <= LONG_SIDES * short:
        assert abs(max(stored) - min(stored) * long / short) <= 1
    assert whole.stored_size(stored) == stored


@quick
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40))
def test_the_size_of_an_evaluated_image_is_torchvisions(height, width, side):
    image = torch.zeros(1, height, width, dtype=torch.uint8)
    assert covering_size((height, width), (side, side)) == tuple(tv.resize(image, [side]).shape[1:])


@pytest.mark.parametrize("size", [(375, 500), (501, 333), (1023, 767)])
def test_a_file_decoded_at_a_smaller_scale_is_evaluated_as_the_whole_file(tmp_path, size):
    image = picture(*size)
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "0.jpg", quality=95)
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "1.png")
    for side in (64, 40, 24):
        data = DIETDataModule(f"folder:{tmp_path}", image_size=side, mean=[0.0] * 3, std=[1.0] * 3, holdout=0.0)
        reduced, full = next(data.eval_batches("train")).input.double() * 255
        # the grid of the reduced image is longer by less than a pixel of it, which is 1 / 1.5 of an output pixel at most
        slopes = torch.cat([full.diff(dim=d).abs().flatten() for d in (1, 2)])
        assert (reduced - full).abs().max() <= 4.0 + slopes.max() / 1.5
        assert (reduced - full).abs().mean() <= 2.0 + slopes.mean() / 1.5
        assert [tuple(each.shape[1:]) for each in data.raw_samples("train", [0, 1]).input] == [
            Whole((side, side)).stored_size(size)
        ] * 2


def test_very_long_images_are_cut_before_they_are_resized():
    image = torch.randint(0, 256, (3, 2, 30000), dtype=torch.uint8)
    fit = Fit((64, 64))
    square = fit.apply(0, image, image.shape[1:])
    assert square.shape == (3, 64, 64)
    assert torch.equal(square, fit.apply(0, image[:, :, 15000 - 20 : 15000 + 20], (2, 40)))


@pytest.mark.parametrize("size", SHAPES.values(), ids=SHAPES)
def test_evaluation_is_torchvisions_resize_and_central_crop(size):
    image = picture(*size)
    found = Fit((SIDE, SIDE)).apply(0, image, size).double()
    field = v2.Compose([v2.Resize(SIDE, antialias=True), v2.CenterCrop(SIDE)])(image.double())
    # an image that is larger than 1.5 times the side is reduced twice, which smooths it a little more
    slope = max(field.diff(dim=d).abs().max() for d in (1, 2))
    assert (found - field).abs().max() <= 2.0 + 0.5 * slope


# -- the same from every storage ---------------------------------------------------------------------------------------


@pytest.fixture
def photographs(tmp_path):
    """Images of several sizes, none larger than 1.5 times 24, so that all storages hold the same pixels."""
    sizes = [(30, 34), (34, 30), (24, 36), (36, 25), (36, 36), (28, 29), (10, 36), (36, 9)]
    folder = tmp_path / "photographs"
    folder.mkdir()
    for n, size in enumerate(sizes):
        Image.fromarray(picture(*size, seed=n).permute(1, 2, 0).numpy()).save(folder / f"{n}.png")
    return f"folder:{folder}"


def opened(source, tmp_path, **options):
    cache = str(tmp_path / "cache") if options.pop("cached", False) else None
    common = {"image_size": SIDE, "batch_size": 4, "holdout": 0.0, "mean": [0.5] * 3, "std": [0.25] * 3, "strength": 3}
    return DIETDataModule(source, cache=cache, **{**common, "num_workers": 0, **options})


STORAGES = [{"in_memory": True}, {"in_memory": False}, {"in_memory": False, "num_workers": 2}, {"cached": True}]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("strength", [0, 1, 3])
def test_training_and_evaluation_see_the_same_from_every_storage(photographs, tmp_path, strength, make_trainer):
    seen = []
    for storage in STORAGES:
        data = opened(photographs, tmp_path, strength=strength, **storage)
        data.trainer = make_trainer(max_epochs=1)
        data.trainer.state.fn, data.trainer.training = "fit", True
        batches = []
        loader = data.train_dataloader()
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            for step, batch in enumerate(loader):
                trained = data._pipeline.augmented(batch.input, (0, epoch, step), 1, 0, cropped=True)
                batches.append((trained, batch.index))
        data.trainer = None
        evaluated = [(batch.input, batch.index) for batch in data.eval_batches("train")]
        drawn = [data.network_inputs(batch.input, 7) for batch in data.raw_batches("train")]
        seen.append(
            [
                torch.cat([x for x, _ in batches]),
                torch.cat([n for _, n in batches]),
                *map(torch.cat, (zip(*evaluated, strict=True))),
                torch.cat(drawn),
            ]
        )
    for other in seen[1:]:
        for ours, theirs in zip(seen[0], other, strict=True):
            assert torch.equal(ours, theirs)


def test_the_crops_of_a_fit_are_those_of_its_seed_epoch_and_step(photographs, tmp_path, make_trainer):
    from diet_lightning import DIETModule

    inputs: list[torch.Tensor] = []

    class Seen(DIETModule):
        def training_step(self, batch, batch_idx):
            inputs.append(batch.input.clone())
            return super().training_step(batch, batch_idx)

    data = opened(photographs, tmp_path, in_memory=False)
    make_trainer(max_epochs=2).fit(Seen("resnet8"), data)
    files, place = data._splits["train"].dataset, 0
    for epoch in range(2):
        sampler = data._loaders().for_training(data._splits["train"], 0, int, None, None).sampler
        sampler.set_epoch(epoch)
        for step, indices in enumerate(sampler):
            assert isinstance(indices, StepIndices)
            whole = join_images([files[n][0] for n in indices])
            expected = data._pipeline.augmented(whole, (0, epoch, step), 1, 0)
            torch.testing.assert_close(inputs[place].contiguous(), expected, rtol=0, atol=0)
            place += 1
    assert place == len(inputs) == 4


def test_whole_images_of_several_sizes_come_as_ragged_images(photographs, tmp_path):
    for storage in STORAGES[:2]:
        data = opened(photographs, tmp_path, **storage)
        batch = next(data.raw_batches("train"))
        assert isinstance(batch.input, RaggedImages)
        assert batch.input.sizes.tolist() == [[30, 34], [34, 30], [24, 36], [36, 25]]
        assert torch.equal(batch.input[2], picture(24, 36, seed=2))
        assert torch.cat([batch.input for batch in data.predict_dataloader()]).shape == (8, 3, SIDE, SIDE)


# -- RaggedImages ------------------------------------------------------------------------------------------------------


@quick
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12), st.integers(1, 4), st.data())
def test_ragged_images_keep_every_image(sizes, channels, data):
    rng = np.random.default_rng(0)
    images = [torch.from_numpy(rng.integers(0, 256, (channels, *size), dtype=np.uint8)) for size in sizes]
    joined = join_images(list(images))
    assert isinstance(joined, RaggedImages) == (len(set(sizes)) > 1)
    assert len(joined) == len(images)
    assert joined.nbytes == sum(image.nbytes for image in images)
    rows = data.draw(st.lists(st.integers(0, len(images) - 1), min_size=1, max_size=12))
    for made, expected in ((joined, images), (joined[torch.tensor(rows)], [images[n] for n in rows])):
        for image, other in zip(made, expected, strict=True):
            assert torch.equal(image, other)


def test_random_numbers_are_uniform_and_every_image_has_its_own():
    numbers = random_numbers(np.random.default_rng(0), 500)
    assert numbers.shape == (NUM_NUMBERS, 500)
    assert len(np.unique(numbers[0])) > 490
    assert abs(float(numbers.mean()) - 0.5) < 5 / np.sqrt(12 * numbers.size)
