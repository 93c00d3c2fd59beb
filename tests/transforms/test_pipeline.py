"""From stored batch to network input: scaling, normalisation and resizing against NumPy, and who may draw what."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import images
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import TensorDataset
from torchvision.transforms import v2

from diet_lightning.data.adapters import adapt
from diet_lightning.data.array_dataset import ArrayDataset
from diet_lightning.data.statistics import CHUNK, IMAGENET_MEAN, IMAGENET_STD, channel_statistics
from diet_lightning.errors import ConfigurationError
from diet_lightning.transforms.pipeline import InputPipeline
from diet_lightning.utilities.seeding import derive_seed

quick = settings(max_examples=30, deadline=None, derandomize=True, database=None)
STEP = (0, 3, 7)  # a (seed, epoch, step)


def pipeline(sample=None, image_size=None, strength=0, augmentation=None, mean=(), std=(), fit="crop"):
    sample = images(1)[0] if sample is None else sample
    return InputPipeline(sample, image_size, strength, augmentation or {}, mean, std, fit)


# -- evaluation --------------------------------------------------------------------------------------------------------


@quick
@given(st.sampled_from([1, 2, 3, 4]), st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_uint8_images_become_floats_and_are_normalised_as_numpy_would(channels, height, width, seed):
    rng = np.random.default_rng(seed)
    stored = rng.integers(0, 256, (5, channels, height, width), dtype=np.uint8)
    mean, std = rng.uniform(0, 1, channels), rng.uniform(0.1, 1, channels)
    plain = pipeline(torch.from_numpy(stored[0]), mean=list(mean), std=list(std)).plain(torch.from_numpy(stored))
    expected = (stored / 255.0 - mean[:, None, None]) / std[:, None, None]
    assert plain.dtype == torch.float32
    np.testing.assert_allclose(plain.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_without_mean_and_std_uint8_images_span_0_to_1():
    stored = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert pipeline(stored[0]).plain(stored).flatten().tolist() == pytest.approx([0.0, 0.2, 1.0])


def test_the_stored_batch_is_not_changed():
    floats, stored = torch.rand(4, 3, 8, 8), images(4)
    kept_floats, kept_stored = floats.clone(), stored.clone()
    options = {"strength": 3, "mean": [0.5] * 3, "std": [0.5] * 3}
    for batch in (floats, stored):
        made = pipeline(batch[0], **options)
        made.plain(batch)
        made.augmented(batch, STEP, 1, 0)
    assert torch.equal(floats, kept_floats)
    assert torch.equal(stored, kept_stored)


@pytest.mark.parametrize("size", [4, 8, 13])
def test_evaluation_resizes_to_a_square_with_antialiasing_before_it_normalises(size):
    stored = images(3)[:, :, :, :6]  # 8 × 6
    made = pipeline(stored[0], image_size=size, mean=[0.1, 0.2, 0.3], std=[0.5, 1.0, 2.0])
    field = v2.Compose([v2.Resize(size, antialias=True), v2.CenterCrop(size)])
    mean, std = (torch.tensor(values)[:, None, None] for values in ([0.1, 0.2, 0.3], [0.5, 1.0, 2.0]))
    assert made.input_shape == (3, size, size)
    # in bytes, which torch computes with weights of 16 bits and rounds: at most one level from the floats
    difference = ((made.plain(stored) * std + mean) - field(stored.float() / 255)).abs()
    assert difference.max() <= 1 / 255 + 1e-6


def test_an_image_that_is_not_square_is_padded_or_squashed_if_it_is_asked_for():
    stored = torch.full((1, 3, 4, 8), 200, dtype=torch.uint8)
    stored[..., 4:] = 100
    padded = pipeline(stored[0], image_size=8, fit="pad").plain(stored)[0, 0] * 255
    assert padded[2:6].round().tolist() == [[200.0] * 4 + [100.0] * 4] * 4
    assert padded[:2].eq(0).all()
    assert padded[6:].eq(0).all()
    squashed = pipeline(stored[0], image_size=4, fit="squash").plain(stored)[0, 0] * 255
    assert squashed[:, 0].round().tolist() == [200.0] * 4
    assert squashed[:, 3].round().tolist() == [100.0] * 4


def test_halving_averages_with_the_triangle_of_antialiasing():
    # by hand, for a row 0 0 1 1 brought to 2 pixels: weights 3 3 1 over 7 at the border
    stored = torch.tensor([0, 0, 255, 255], dtype=torch.uint8).expand(1, 1, 4, 4)
    row = pipeline(stored[0], image_size=2).plain(stored)[0, 0, 0].tolist()
    assert row == pytest.approx([1 / 7, 6 / 7], abs=1 / 255)


@pytest.mark.parametrize("shape", [(5,), (2, 10), (2, 3, 4, 4), ()], ids=str)
def test_inputs_other_than_images_pass_as_they_are(shape):
    stored = torch.randn(4, *shape)
    made = pipeline(stored[0], image_size=32)
    assert made.input_shape == shape
    assert torch.equal(made.plain(stored), stored)
    assert torch.equal(made.augmented(stored, STEP, 1, 0), stored)


def test_tokens_stay_integers():
    tokens = torch.randint(0, 1000, (4, 12))
    assert torch.equal(pipeline(tokens[0]).plain(tokens), tokens)


@pytest.mark.parametrize("shape", [(2, 10), (2,)], ids=["signals of two channels", "vectors"])
def test_mean_and_std_normalise_the_first_axis_of_inputs_that_are_no_images(shape):
    stored = torch.randn(2, *shape)
    plain = pipeline(stored[0], mean=[0.0, 10.0], std=[1.0, 2.0]).plain(stored)
    trailing = (1,) * (len(shape) - 1)
    expected = (stored - torch.tensor([0.0, 10.0]).reshape(2, *trailing)) / torch.tensor([1.0, 2.0]).reshape(
        2, *trailing
    )
    torch.testing.assert_close(plain, expected)


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [images(4), images(4).float() / 255], ids=["uint8", "float"])
@pytest.mark.parametrize("size", [None, 5])
def test_strength_0_trains_on_what_evaluation_sees(stored, size):
    made = pipeline(stored[0], image_size=size, mean=[0.5] * 3, std=[0.25] * 3)
    assert torch.equal(made.augmented(stored, STEP, 1, 0), made.plain(stored))


@pytest.mark.parametrize("size", [None, 5, 16])
@pytest.mark.parametrize("strength", [1, 2, 3])
def test_augmented_images_have_the_input_shape_and_range(strength, size):
    stored = images(16)
    made = pipeline(image_size=size, strength=strength)
    augmented = made.augmented(stored, STEP, 1, 0)
    assert augmented.shape == (16, *made.input_shape) == (16, 3, size or 8, size or 8)
    assert augmented.dtype == torch.float32
    assert augmented.min() >= 0.0
    assert augmented.max() <= 1.0 + 1e-5
    assert not torch.equal(augmented, made.plain(stored))


@pytest.mark.parametrize("strength", [1, 2, 3])
def test_float64_images_are_augmented_too(strength):
    stored = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    made = pipeline(stored[0], strength=strength)
    augmented = made.augmented(stored, STEP, 1, 0)
    expected = pipeline(stored[0].float(), strength=strength).augmented(stored.float(), STEP, 1, 0)
    torch.testing.assert_close(augmented.float(), expected, rtol=0, atol=1e-5)


def test_augmentation_commutes_with_normalisation_and_erases_to_the_mean_colour():
    stored = images(64, side=16)
    mean, std = [0.2, 0.4, 0.6], [0.5, 0.25, 1.0]
    settings_ = {"erase_p": 1.0, "erase_scale": (0.2, 0.3)}
    raw = pipeline(stored[0], strength=3, augmentation=settings_).augmented(stored, STEP, 1, 0)
    normalised = pipeline(stored[0], strength=3, augmentation=settings_, mean=mean, std=std).augmented(
        stored, STEP, 1, 0
    )
    erased = (normalised == 0.0).all(dim=1)
    expected = (raw - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    expected = expected.masked_fill(erased[:, None], 0.0)
    torch.testing.assert_close(normalised, expected, rtol=0, atol=1e-6)
    share = erased.float().mean(dim=(1, 2))  # the boxes are drawn for 20 to 30 % of the area, and rounded
    assert 0.1 < share.min() <= share.max() < 0.4
    weaker = pipeline(stored[0], strength=2, augmentation=settings_).augmented(stored, STEP, 1, 0)
    assert (weaker == 0.0).all(dim=1).float().mean() < 0.1  # strength 2 erases nothing


@settings(quick, max_examples=20)
@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 2, 3]), st.integers(0, 1000))
def test_ranks_together_draw_what_one_process_draws_for_the_total_batch(batch, world, strength, seed):
    stored = images(batch * world, seed=seed)
    made = pipeline(strength=strength, augmentation={"erase_p": 0.5, "jitter_p": 0.7})
    alone = made.augmented(stored, (seed, 1, 2), 1, 0)
    for rank in range(world):  # the rank's j-th sample is number j * world + rank of the step
        part = made.augmented(stored[rank::world], (seed, 1, 2), world, rank)
        torch.testing.assert_close(part, alone[rank::world], rtol=0, atol=1e-6)


def test_augmentation_is_a_function_of_seed_epoch_and_step():
    stored, made = images(8), pipeline(strength=3)
    first = made.augmented(stored, (1, 2, 3), 1, 0)
    assert torch.equal(made.augmented(stored, (1, 2, 3), 1, 0), first)
    for other in ((0, 2, 3), (1, 3, 3), (1, 2, 4), (2, 1, 3)):
        assert not torch.equal(made.augmented(stored, other, 1, 0), first)


@pytest.mark.parametrize("with_function", [False, True])
def test_augmentation_neither_reads_nor_moves_the_global_generators(with_function):
    stored = images(8)
    made = pipeline(strength=3, augmentation=shaken if with_function else None)
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = made.augmented(stored, STEP, 1, 0)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(98765)
        assert torch.equal(made.augmented(stored, STEP, 1, 0), first)


# -- the user's function -----------------------------------------------------------------------------------------------


def shaken(inputs, generator):
    return inputs + torch.rand(inputs.shape, generator=generator, device=inputs.device)


def test_the_users_function_gets_floats_in_0_to_1_and_a_generator_and_is_normalised_after():
    seen = []

    def augment(inputs, generator):
        seen.append((inputs.clone(), generator))
        return inputs.flip(3)

    stored = images(4)
    # an unsuitable strength does not matter: the function replaces BatchAugmentation
    made = pipeline(strength=3, augmentation=augment, mean=[0.5] * 3, std=[0.25] * 3)
    augmented = made.augmented(stored, STEP, 1, 0)
    (inputs, generator), *more = seen
    assert not more
    assert torch.equal(inputs, stored.float() / 255)
    assert isinstance(generator, torch.Generator)
    assert generator.device == stored.device
    torch.testing.assert_close(augmented, (stored.flip(3).float() / 255 - 0.5) / 0.25)
    torch.testing.assert_close(made.plain(stored), (stored.float() / 255 - 0.5) / 0.25)  # not called for evaluation
    assert len(seen) == 1


def test_the_users_generator_follows_seed_epoch_step_and_rank():
    stored, made = torch.zeros(4, 7), pipeline(torch.zeros(7), strength=3, augmentation=shaken)
    first = made.augmented(stored, STEP, 2, 0)
    assert torch.equal(made.augmented(stored, STEP, 2, 0), first)
    assert not torch.equal(made.augmented(stored, STEP, 2, 1), first)
    assert not torch.equal(made.augmented(stored, (0, 3, 8), 2, 0), first)
    expected = torch.rand(4, 7, generator=torch.Generator().manual_seed(derive_seed(*STEP, 0)))
    assert torch.equal(first, expected)


# -- colour statistics -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_mean_and_std_of_images_in_memory_equal_numpys(channels):
    stored = images(CHUNK + 7, channels, side=3)  # more than one chunk
    stored[:CHUNK] //= 2  # so that the chunks differ
    mean, std = channel_statistics(ArrayDataset(stored), stored[0])
    pixels = stored.numpy() / 255.0
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-10)
    np.testing.assert_allclose(std, pixels.std(axis=(0, 2, 3)), rtol=1e-8)


def test_images_of_one_colour_do_not_divide_by_zero():
    stored = torch.full((4, 1, 2, 2), 255, dtype=torch.uint8)
    mean, std = channel_statistics(ArrayDataset(stored), stored[0])
    assert mean == [1.0]
    assert std == [pytest.approx(0.01)]
    assert torch.equal(pipeline(stored[0], mean=mean, std=std).plain(stored), torch.zeros(4, 1, 2, 2))


def test_images_decoded_on_the_fly_take_imagenets_colours_and_other_bands_one_half():
    rgb, gray, bands = images(4), images(4, channels=1), images(4, channels=5)
    assert channel_statistics(adapt(TensorDataset(rgb)), rgb[0]) == (IMAGENET_MEAN, IMAGENET_STD)
    mean, std = channel_statistics(adapt(TensorDataset(gray)), gray[0])
    assert (mean, std) == ([pytest.approx(0.449)], [pytest.approx(0.226)])  # the averages of the three published values
    assert channel_statistics(adapt(TensorDataset(bands)), bands[0]) == ([0.5] * 5, [0.5] * 5)


@pytest.mark.parametrize("stored", [torch.rand(4, 5), images(4)[:, 0]], ids=["flat", "signals"])
def test_inputs_other_than_images_are_not_normalised(stored):
    assert channel_statistics(ArrayDataset(stored), stored[0]) == ([], [])


def test_statistics_of_float_images_equal_numpys():
    stored = torch.rand(1100, 3, 5, 4) * torch.tensor([0.1, 0.5, 1.0])[:, None, None]
    mean, std = channel_statistics(ArrayDataset(stored), stored[0])
    values = stored.double().numpy()
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, values.std((0, 2, 3)), rtol=1e-9)


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5,), (2, 10), (1, 3, 4, 4)], ids=str)
def test_a_strength_for_inputs_that_are_no_images_is_refused_with_the_cure(shape):
    with pytest.raises(ConfigurationError) as error:
        pipeline(torch.zeros(shape), strength=1)
    for part in ("strength=1", str(tuple(shape)), "`augmentation`", "`strength` to 0"):
        assert part in str(error.value)


@pytest.mark.parametrize("strength", [0, 1, 3])
def test_an_unknown_name_of_a_range_is_refused(strength):
    with pytest.raises(
        ConfigurationError, match=r"Unknown name in `augmentation`: \[.crop_scael.\]; expected some of .*crop_scale"
    ):
        pipeline(strength=strength, augmentation={"crop_scael": (0.2, 1.0)})


def test_a_bad_value_of_a_range_is_refused_by_its_own_message():
    with pytest.raises(ConfigurationError, match=r"`crop_scale`.*\[0\.9, 0\.1\]"):
        pipeline(strength=1, augmentation={"crop_scale": [0.9, 0.1]})


def test_a_number_in_place_of_a_range_is_not_called_an_unknown_name():
    with pytest.raises(ConfigurationError) as error:
        pipeline(strength=1, augmentation={"crop_scale": 0.2})
    assert "Unknown name" not in str(error.value)


@pytest.mark.parametrize(
    ("mean", "std"), [([0.5], [0.5]), ([0.5] * 3, [0.5] * 2), ([0.5] * 2, [0.5] * 3), ([0.5] * 3, [])]
)
def test_a_wrong_number_of_mean_or_std_is_refused_by_value(mean, std):
    with pytest.raises(ConfigurationError) as error:
        pipeline(mean=mean, std=std)
    for part in ("`mean` and `std`", "(3)", str(mean), str(std)):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "found"), [(lambda x, g: x[:1], r"shape \(1, 3, 8, 8\)"), (lambda x, g: None, "NoneType")]
)
def test_a_function_that_returns_another_number_of_samples_is_refused(wrong, found):
    stored = images(4)
    with pytest.raises(
        ConfigurationError, match=f"`augmentation` to return .* 4 samples of the batch, but got {found}"
    ):
        pipeline(stored[0], augmentation=wrong).augmented(stored, STEP, 1, 0)


def test_images_of_other_integers_are_normalised_as_floats():
    stored = torch.full((2, 1, 4, 4), 150, dtype=torch.int16)
    plain = pipeline(stored[0], mean=[100.0], std=[50.0]).plain(stored)
    torch.testing.assert_close(plain, torch.ones(2, 1, 4, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_other_widths_are_augmented(dtype):
    stored = torch.rand(16, 3, 8, 8, dtype=torch.float64).to(dtype)
    augmented = pipeline(stored[0], strength=3, mean=[0.5] * 3, std=[0.5] * 3).augmented(stored, STEP, 1, 0)
    expected = pipeline(stored[0].float(), strength=3, mean=[0.5] * 3, std=[0.5] * 3).augmented(
        stored.float(), STEP, 1, 0
    )
    torch.testing.assert_close(augmented.float(), expected, rtol=0, atol=0.05)
