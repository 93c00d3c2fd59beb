"""The augmentation's operations against torchvision's functional, and its draws against torchvision's `get_params`."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from helpers import each_device
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchvision import transforms
from torchvision.transforms.v2 import functional as tv

from diet_lightning.errors import ConfigurationError
from diet_lightning.transforms import operations
from diet_lightning.transforms.augmentation import AugmentationParameters, BatchAugmentation

EXACT = 2e-6  # what float32 rounding may differ; 1/255 is 4e-3
DRAWS = 2000
BELIEF = 1e-4  # a two-sample test below this p-value fails; the seeds are fixed

quick = settings(max_examples=30, deadline=None, derandomize=True, database=None)
channels = st.sampled_from([1, 3])
side = st.integers(2, 20)
out_side = st.integers(2, 28)  # torch's own antialiased resize to a width of 1 is wrong (see below)
seeds = st.integers(0, 2**16)


def generator(seed):
    return np.random.default_rng(seed)


def torch_generator(seed):
    return torch.Generator().manual_seed(seed)


def random_images(seed, count, channel, height, width):
    """Floats in [0, 1], with gray and saturated pixels, where hue and saturation have their special cases."""
    images = torch.rand(count, channel, height, width, generator=torch_generator(seed))
    special = torch.rand(count, 1, height, width, generator=torch_generator(seed + 1))
    return torch.where(special < 0.1, images[:, :1], torch.where(special > 0.9, images.round(), images))


def each(function, images, *arguments):
    """A torchvision function of one image at a time."""
    return torch.stack(
        [function(image, *(float(a[n]) for a in arguments)) for n, image in enumerate(images)],
    )


def boxes_within(data, count, height, width):
    """Boxes anywhere in the image, borders and single pixels included."""
    boxes = []
    for _ in range(count):
        h, w = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
        boxes.append([data.draw(st.integers(0, height - h)), data.draw(st.integers(0, width - w)), h, w])
    return torch.tensor(boxes, dtype=torch.float32)


# -- operations --------------------------------------------------------------------------------------------------------


def reference_crop(image, box, flip, out):
    top, left, height, width = (int(v) for v in box)
    image = tv.resized_crop(image, top, left, height, width, list(out), antialias=True)
    return tv.horizontal_flip(image) if flip else image


@quick
@given(st.data(), channels, side, side, out_side, out_side, seeds)
def test_resized_crop_and_flip_equal_torchvision(data, channel, height, width, out_height, out_width, seed):
    images = random_images(seed, 3, channel, height, width)
    boxes, flip = boxes_within(data, 3, height, width), torch.tensor([True, False, data.draw(st.booleans())])
    out = (out_height, out_width)
    expected = torch.stack([reference_crop(*each, out) for each in zip(images, boxes, flip, strict=True)])
    torch.testing.assert_close(operations.resized_crop(images, boxes, flip, out), expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize("out", [(32, 32), (8, 8), (50, 20), (64, 224)], ids=str)
def test_resized_crop_equals_torchvision_at_the_four_borders_of_a_photo_sized_image(out):
    images = random_images(0, 5, 3, 97, 64)
    boxes = torch.tensor([[0, 0, 40, 30], [0, 34, 40, 30], [57, 0, 40, 30], [57, 34, 40, 30], [0, 0, 97, 64]]).float()
    flip = torch.tensor([False, True, False, True, False])
    expected = torch.stack([reference_crop(*each, out) for each in zip(images, boxes, flip, strict=True)])
    torch.testing.assert_close(operations.resized_crop(images, boxes, flip, out), expected, rtol=0, atol=EXACT)


@quick
@given(st.data(), channels, st.integers(2, 90), st.integers(2, 90), st.integers(50, 96), seeds)
def test_large_images_of_bytes_are_cropped_as_torchvision_does_and_as_floats_are(
    data, channel, height, width, out, seed
):
    images = torch.randint(0, 256, (3, channel, height, width), generator=torch_generator(seed), dtype=torch.uint8)
    boxes, flip = boxes_within(data, 3, height, width), torch.tensor([True, False, data.draw(st.booleans())])
    expected = torch.stack([reference_crop(*each, (out, 50)) for each in zip(images, boxes, flip, strict=True)])
    bytes_ = operations.resized_crop_of_bytes(images, boxes, flip, (out, 50))
    unequal = 1 if torch.__version__.startswith("2.6.") else 0  # its kernel for bytes rounds batches in its own way
    torch.testing.assert_close(bytes_.int(), expected.int(), rtol=0, atol=unequal)
    floats = operations.resized_crop(images, boxes, flip, (out, 50))
    # half a byte is rounded along each axis, and the kernel's weights are whole numbers
    torch.testing.assert_close(bytes_ / 255, floats, rtol=0, atol=1.1 / 255)
    torch.testing.assert_close(
        floats, operations.resized_crop(images / 255, boxes, flip, (out, 50)), rtol=0, atol=EXACT
    )


@pytest.mark.parametrize(("height", "out_height"), [(2, 3), (9, 4), (5, 1)])
def test_an_output_one_pixel_wide_equals_torchvision_on_the_transposed_image(height, out_height):
    # F.interpolate(antialias=True) of torch 2.15 repeats wrong rows where the output is 1 wide, but not where it is 1 high
    images = random_images(0, 1, 3, height, 4)
    boxes = torch.tensor([[0.0, 0.0, height, 4.0]])
    ours = operations.resized_crop(images, boxes, torch.tensor([False]), (out_height, 1))
    theirs = tv.resize(images[0].transpose(1, 2), [1, out_height], antialias=True).transpose(1, 2)
    torch.testing.assert_close(ours[0], theirs, rtol=0, atol=EXACT)


def test_a_crop_of_the_whole_image_at_its_own_size_changes_no_pixel():
    images = random_images(0, 2, 3, 7, 9)
    boxes = torch.tensor([[0.0, 0.0, 7.0, 9.0]] * 2)
    assert torch.equal(operations.resized_crop(images, boxes, torch.tensor([False, True]), (7, 9))[0], images[0])
    assert torch.equal(
        operations.resized_crop(images, boxes, torch.tensor([False, True]), (7, 9))[1], images[1].flip(2)
    )


@quick
@given(
    st.sampled_from(["brightness", "contrast", "saturation"]),
    channels,
    side,
    side,
    seeds,
    st.lists(st.floats(0, 2.5, width=32), min_size=3, max_size=3),
)
def test_brightness_contrast_and_saturation_equal_torchvision(name, channel, height, width, seed, factors):
    if name == "saturation":
        channel = 3  # one-channel images skip it
    images = random_images(seed, 3, channel, height, width)
    ours = getattr(operations, f"adjust_{name}")(images, torch.tensor(factors))
    theirs = each(getattr(tv, f"adjust_{name}"), images, factors)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=EXACT)


@quick
@given(side, side, seeds, st.lists(st.floats(-0.5, 0.5, width=32), min_size=3, max_size=3))
def test_hue_equals_torchvision(height, width, seed, shifts):
    images = random_images(seed, 3, 3, height, width)
    # a turn of the hue multiplies rounding by up to 6 and by the chroma
    torch.testing.assert_close(
        operations.adjust_hue(images, torch.tensor(shifts)), each(tv.adjust_hue, images, shifts), rtol=0, atol=1e-5
    )


def test_a_full_third_of_the_circle_turns_red_into_green():
    red = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    turned = operations.adjust_hue(red, torch.tensor([1 / 3]))
    torch.testing.assert_close(turned.flatten(), torch.tensor([0.0, 1.0, 0.0]), rtol=0, atol=EXACT)


@quick
@given(channels, side, side, seeds)
def test_grayscale_equals_torchvision(channel, height, width, seed):
    images = random_images(seed, 2, channel, height, width)
    expected = torch.stack([tv.rgb_to_grayscale(image, num_output_channels=1) for image in images])
    torch.testing.assert_close(operations.grayscale(images), expected, rtol=0, atol=EXACT)


@quick
@given(
    st.sampled_from([1, 3, 5, 7]),
    channels,
    st.integers(4, 20),
    st.integers(4, 20),
    seeds,
    st.lists(st.floats(0.125, 4, width=32), min_size=3, max_size=3),
)
def test_gaussian_blur_equals_torchvision(kernel, channel, height, width, seed, sigmas):
    images = random_images(seed, 3, channel, height, width)
    ours = operations.gaussian_blur(images, torch.tensor(sigmas), kernel)
    theirs = each(lambda image, sigma: tv.gaussian_blur(image, [kernel, kernel], [sigma, sigma]), images, sigmas)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=EXACT)


@quick
@given(st.data(), channels, side, side, seeds)
def test_erasing_equals_torchvision_exactly(data, channel, height, width, seed):
    images = random_images(seed, 3, channel, height, width) + 1.0  # no pixel is 0 before
    boxes = boxes_within(data, 3, height, width)
    boxes[2] = 0.0  # height 0: nothing is erased
    expected = [tv.erase(im, *(int(v) for v in box), torch.zeros(1)) for im, box in zip(images, boxes, strict=True)]
    assert torch.equal(operations.erase_boxes(images, boxes), torch.stack(expected))
    assert torch.equal(operations.erase_boxes(images, boxes)[2], images[2])


# -- the whole augmentation --------------------------------------------------------------------------------------------------------


def reference_apply(image, p, strength, out, kernel=3):
    """Torchvision's operations on one image, in the augmentation's order."""
    colours = image.shape[0]
    if strength >= 1:
        image = reference_crop(image, p.crop, p.flip, out)
    if strength >= 2 and colours in (1, 3):
        if p.jitter:
            image = tv.adjust_contrast(tv.adjust_brightness(image, float(p.brightness)), float(p.contrast))
            if colours == 3:
                image = tv.adjust_hue(tv.adjust_saturation(image, float(p.saturation)), float(p.hue))
        if p.gray and colours == 3:
            image = tv.rgb_to_grayscale(image, num_output_channels=3)
    if strength >= 3 and p.blur:
        image = tv.gaussian_blur(image, [kernel, kernel], [float(p.sigma)] * 2)
    return image


@each_device
@pytest.mark.parametrize("strength", [0, 1, 2, 3])
@pytest.mark.parametrize("channel", [1, 2, 3, 4])
def test_each_strength_applies_torchvisions_operations_in_order_to_each_image(strength, channel, device):
    augmentation = BatchAugmentation(strength, jitter_p=0.6, gray_p=0.4, blur_p=0.5, blur_kernel=5)
    images, out = random_images(3, 24, channel, 13, 11), (9, 10)
    if strength == 0:
        out = (13, 11)
    parameters = augmentation.draw(24, (13, 11), out, generator(5))
    expected = [
        reference_apply(image, AugmentationParameters(*(field[n] for field in parameters)), strength, out, kernel=5)
        for n, image in enumerate(images)
    ]
    ours = augmentation.apply(images.to(device), parameters, out).cpu()
    torch.testing.assert_close(ours, torch.stack(expected), rtol=0, atol=1e-5)
    assert 0.0 <= ours.min() <= ours.max() <= 1.0 + EXACT
    if strength >= 2 and channel in (1, 3):  # the colours did take part
        weaker = BatchAugmentation(1).apply(images, parameters, out)
        assert sum(not torch.equal(a, b) for a, b in zip(ours, weaker, strict=True)) >= 8


def test_strength_0_returns_the_images_untouched():
    images = random_images(0, 2, 3, 5, 6)
    augmentation = BatchAugmentation(0)
    assert torch.equal(augmentation.apply(images, augmentation.draw(2, (5, 6), (5, 6), generator(0)), (5, 6)), images)


@pytest.mark.filterwarnings("ignore:.*CUDA.*")
def test_compiled_operations_give_the_same_and_are_compiled_once(monkeypatch):
    # the tracing and its guards are what is tested; generating code for them takes half a minute
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    counters = torch._dynamo.utils.counters
    counters.clear()
    plain, compiled = BatchAugmentation(3), BatchAugmentation(3, compiled=True)
    for count, seed in [(48, 0), (48, 1), (48, 2), (31, 3), (200, 4)]:
        images = random_images(seed, count, 3, 12, 14)
        parameters = plain.draw(count, (12, 14), (10, 9), generator(seed))
        ours, theirs = (each.apply(images, parameters, (10, 9)) for each in (plain, compiled))
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 3  # crop, jitter, blur
    assert not counters["graph_break"]


# -- distributions -----------------------------------------------------------------------------------------------------


def torchvision_draws(get_params):
    """`DRAWS` results of a `get_params`, from a seed of its own, without touching the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        return np.array([get_params() for _ in range(DRAWS)], dtype=np.float64)


def assert_same_distribution(ours, theirs, what):
    result = stats.ks_2samp(np.asarray(ours, dtype=np.float64), theirs)
    assert result.pvalue > BELIEF, f"{what}: {result}"


def assert_same_boxes(ours, theirs, size):
    """Compares side lengths, area, ratio, and the position in its free room."""
    features = {
        "top": lambda b: b[:, 0],
        "left": lambda b: b[:, 1],
        "height": lambda b: b[:, 2],
        "width": lambda b: b[:, 3],
        "area": lambda b: b[:, 2] * b[:, 3],
        "ratio": lambda b: np.log(b[:, 3] / b[:, 2]),
        "relative top": lambda b: b[:, 0] / (size[0] - b[:, 2] + 1),
        "relative left": lambda b: b[:, 1] / (size[1] - b[:, 3] + 1),
    }
    for what, feature in features.items():
        assert_same_distribution(feature(ours), feature(theirs), what)


@pytest.mark.parametrize(
    ("size", "scale", "ratio"),
    [
        ((48, 48), (0.08, 1.0), (3 / 4, 4 / 3)),  # the default
        ((40, 90), (0.3, 0.9), (0.5, 3.0)),  # many attempts fail, wide boxes preferred
        ((7, 5), (0.08, 1.0), (3 / 4, 4 / 3)),  # rounding matters
    ],
    ids=["square", "wide", "small"],
)
def test_crops_are_distributed_like_random_resized_crop(size, scale, ratio):
    augmentation = BatchAugmentation(1, crop_scale=scale, crop_ratio=ratio)
    ours = augmentation.draw(DRAWS, size, (8, 8), generator(7)).crop.double().numpy()
    image = torch.empty(1, *size)
    theirs = torchvision_draws(lambda: transforms.RandomResizedCrop.get_params(image, list(scale), list(ratio)))
    assert_same_boxes(ours, theirs, size)
    assert (ours[:, 0] + ours[:, 2]).max() == size[0]  # the far border is reached and never passed
    assert (ours[:, 1] + ours[:, 3]).max() == size[1]


@pytest.mark.parametrize(
    ("size", "scale", "ratio"),
    [
        ((48, 48), (0.02, 0.33), (0.3, 3.3)),
        ((60, 32), (0.1, 0.6), (0.5, 4.0)),
        ((6, 5), (0.3, 1.0), (0.5, 2.0)),  # a box as high or as wide as the image does not count
    ],
    ids=["default", "tall", "small"],
)
def test_erased_boxes_are_distributed_like_random_erasing(size, scale, ratio):
    augmentation = BatchAugmentation(3, erase_p=1.0, erase_scale=scale, erase_ratio=ratio)
    # the boxes lie in the output, whatever the input's size
    ours = augmentation.draw(DRAWS, (8, 200), size, generator(8)).erase.double().numpy()
    image = torch.empty(1, *size)
    theirs = torchvision_draws(
        lambda: transforms.RandomErasing.get_params(image, list(scale), list(ratio), value=[0.0])[:4]
    )
    found = ours[:, 2] > 0
    their_found = theirs[:, 2] < size[0]  # torchvision falls back to the whole image, and erases nothing
    assert abs(found.mean() - their_found.mean()) < 5 * math.sqrt(0.5 / DRAWS)
    assert_same_boxes(ours[found], theirs[their_found], size)


def test_jitter_factors_are_distributed_like_color_jitter():
    strengths = (0.4, 1.3, 0.0, 0.2)  # beyond 1 the lower end is 0
    drawn = BatchAugmentation(2, jitter=strengths).draw(DRAWS, (8, 8), (8, 8), generator(9))
    jitter = transforms.ColorJitter(*strengths)
    ranges = [r and [float(v) for v in r] for r in (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)]
    theirs = torchvision_draws(lambda: [1.0 if v is None else v for v in jitter.get_params(*ranges)[1:]])
    for column, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        ours = getattr(drawn, name)
        if strengths[column] == 0.0:
            assert torch.equal(ours, torch.ones(DRAWS))
        else:
            assert_same_distribution(ours, theirs[:, column], name)


def test_blur_widths_are_distributed_like_gaussian_blur():
    ours = BatchAugmentation(3, blur_sigma=(0.3, 2.5)).draw(DRAWS, (8, 8), (8, 8), generator(10)).sigma
    theirs = torchvision_draws(lambda: [transforms.GaussianBlur.get_params(0.3, 2.5)])[:, 0]
    assert_same_distribution(ours, theirs, "sigma")


PAPER = {"flip": 0.5, "jitter_p": 0.3, "gray_p": 0.2, "blur_p": 0.2, "erase_p": 0.25}


@pytest.mark.parametrize("p", [PAPER, dict.fromkeys(PAPER, 0.0), dict.fromkeys(PAPER, 1.0), dict.fromkeys(PAPER, 0.7)])
def test_operations_happen_with_their_probability(p):
    drawn = (BatchAugmentation() if p is PAPER else BatchAugmentation(**p)).draw(
        2 * DRAWS, (32, 32), (32, 32), generator(11)
    )
    erased = drawn.erase[:, 2] > 0
    happened = {
        "flip": drawn.flip,
        "jitter_p": drawn.jitter,
        "gray_p": drawn.gray,
        "blur_p": drawn.blur,
        "erase_p": erased,
    }
    for name, expected in p.items():
        bound = 4.5 * math.sqrt(2 * DRAWS * expected * (1 - expected))
        assert abs(int(happened[name].sum()) - 2 * DRAWS * expected) <= bound, name


def test_no_draw_depends_on_another():
    drawn = BatchAugmentation(3).draw(2 * DRAWS, (64, 64), (64, 64), generator(12))
    columns = {name: field.double() for name, field in drawn._asdict().items() if field.ndim == 1}
    columns["crop height"], columns["crop width"] = drawn.crop[:, 2].double(), drawn.crop[:, 3].double()
    # the middle of each pixel's share of the free room, so that the mean is 1/2 whatever the room
    columns["crop top"] = (drawn.crop[:, 0].double() + 0.5) / (65 - columns["crop height"])
    columns["crop left"] = (drawn.crop[:, 1].double() + 0.5) / (65 - columns["crop width"])
    columns["erased"] = (drawn.erase[:, 2] > 0).double()
    correlation = torch.corrcoef(torch.stack(list(columns.values())))
    names = list(columns)
    for a, first in enumerate(names):
        for b, second in enumerate(names[:a]):
            if {first, second} != {"crop height", "crop width"}:  # both follow from the area
                assert abs(correlation[a, b]) < 5 / math.sqrt(2 * DRAWS), (first, second)


@pytest.mark.parametrize(
    ("size", "scale"),
    [((4, 40), (0.9, 1.0)), ((40, 5), (0.9, 1.0)), ((10, 12), (3.0, 4.0)), ((3, 100), (0.5, 1.0))],
    ids=["wide", "tall", "within the ratios", "odd rest"],
)
def test_where_no_crop_fits_the_fallback_is_torchvisions_central_crop(size, scale):
    ratio = (3 / 4, 4 / 3)
    image = torch.empty(1, *size)
    with torch.random.fork_rng(devices=[]):
        expected = transforms.RandomResizedCrop.get_params(image, list(scale), list(ratio))
    drawn = BatchAugmentation(1, crop_scale=scale, crop_ratio=ratio).draw(6, size, (8, 8), generator(0))
    assert drawn.crop.tolist() == [[float(v) for v in expected]] * 6


def test_where_no_erased_box_fits_nothing_is_erased():
    augmentation = BatchAugmentation(3, erase_p=1.0, erase_scale=(1.5, 2.0))
    drawn = augmentation.draw(6, (8, 8), (8, 8), generator(0))
    images = torch.ones(6, 3, 8, 8)
    assert torch.equal(operations.erase_boxes(images, drawn.erase), images)


# -- per sample, reproducible ------------------------------------------------------------------------------------------


def test_no_two_samples_of_a_batch_share_parameters():
    drawn = BatchAugmentation(3, erase_p=1.0).draw(256, (224, 224), (224, 224), generator(13))
    for name in ("brightness", "contrast", "saturation", "hue", "sigma"):
        assert len(getattr(drawn, name).unique()) == 256, name
    # boxes are whole pixels, so a chance repeat is possible but not for many
    assert len(drawn.crop.unique(dim=0)) >= 254
    assert len(drawn.erase.unique(dim=0)) >= 254
    for name in ("flip", "jitter", "gray", "blur"):
        assert 0 < getattr(drawn, name).sum() < 256, name


def test_same_seed_same_draws_and_another_seed_others():
    augmentation = BatchAugmentation(3)
    first, again, other = (augmentation.draw(16, (20, 20), (16, 16), generator(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.crop, other.crop)
    assert not torch.equal(first.hue, other.hue)


def test_strengths_draw_alike_and_differ_by_their_operations_alone():
    first, second, third = (
        BatchAugmentation(strength).draw(16, (20, 20), (16, 16), generator(4)) for strength in (1, 2, 3)
    )
    for a, b, c in zip(first, second, third, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    BatchAugmentation(3).draw(4, (8, 8), (8, 8), generator(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_defaults_are_the_papers():
    augmentation = BatchAugmentation()
    assert (
        augmentation.strength,
        augmentation.jitter_p,
        augmentation.gray_p,
        augmentation.blur_p,
        augmentation.erase_p,
    ) == (3, 0.3, 0.2, 0.2, 0.25)
    assert tuple(augmentation.jitter) == (0.4, 0.4, 0.4, 0.2)
    assert (augmentation.flip, tuple(augmentation.crop_scale), augmentation.blur_kernel) == (0.5, (0.08, 1.0), 3)
    assert tuple(augmentation.blur_sigma) == (1.0, 2.0)


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [-1, 4, 1.5, "strong"])
def test_an_unknown_strength_is_refused_by_name_and_value(strength):
    with pytest.raises(ConfigurationError, match=rf"`strength` .* but got {strength}: 0 means none"):
        BatchAugmentation(strength)


@pytest.mark.parametrize("name", ["crop_scale", "crop_ratio", "blur_sigma", "erase_scale", "erase_ratio"])
@pytest.mark.parametrize(
    "pair", [[0.0, 1.0], [-1.0, 1.0], [0.9, 0.3], [0.5], [0.1, 0.2, 0.3], [], [math.nan, 1.0]], ids=str
)
def test_a_range_that_is_none_is_refused_by_name_and_value(name, pair):
    with pytest.raises(ConfigurationError) as error:
        BatchAugmentation(3, **{name: pair})
    assert f"`{name}`" in str(error.value)
    assert str(pair) in str(error.value)


@pytest.mark.parametrize("name", ["flip", "jitter_p", "gray_p", "blur_p", "erase_p"])
@pytest.mark.parametrize("p", [-0.1, 1.01, math.nan])
def test_a_probability_outside_0_to_1_is_refused_by_name_and_value(name, p):
    with pytest.raises(ConfigurationError, match=rf"`{name}` to be a probability.*got {p}"):
        BatchAugmentation(3, **{name: p})


@pytest.mark.parametrize("jitter", [[0.4, 0.4, 0.4], [0.4, 0.4, 0.4, 0.6], [-0.1, 0.4, 0.4, 0.1], []], ids=str)
def test_bad_jitter_is_refused_by_name_and_value(jitter):
    with pytest.raises(ConfigurationError) as error:
        BatchAugmentation(2, jitter=jitter)
    assert "`jitter`" in str(error.value)
    assert str(jitter) in str(error.value)


@pytest.mark.parametrize("kernel", [0, -3, 2, 4])
def test_an_even_or_empty_blur_kernel_is_refused_by_name_and_value(kernel):
    with pytest.raises(ConfigurationError, match=rf"`blur_kernel`.*got {kernel}"):
        BatchAugmentation(3, blur_kernel=kernel)


@pytest.mark.parametrize("name", ["crop_scale", "jitter"])
def test_a_number_in_place_of_a_range_is_refused_by_name(name):
    with pytest.raises(ConfigurationError, match=f"`{name}`"):
        BatchAugmentation(3, **{name: 0.2})
