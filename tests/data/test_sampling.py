"""The order of an epoch: a permutation, a function of (seed, epoch), shared by ranks, and resumable."""

from __future__ import annotations

import pickle
import warnings

import pytest
import torch
from helpers import each_device
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_lightning.data.array_dataset import ArrayDataset
from diet_lightning.data.indexed import IndexedDataset
from diet_lightning.data.loaders import MemoryLoader, ResumableLoader, identity_collate, to_device_if_fits
from diet_lightning.data.sampling import EpochSampler, StepSampler

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)
counts, batch_sizes, replicas = st.integers(1, 60), st.integers(1, 20), st.integers(1, 5)
seeds, epochs = st.integers(0, 2**40), st.integers(0, 500)


def numbers(count):
    return IndexedDataset(ArrayDataset(torch.arange(count)))


def order(count, epoch=0, position=0, **options):
    sampler = EpochSampler(numbers(count), **{"batch_size": 1, **options})
    sampler.set_epoch(epoch)
    sampler.position = lambda: position
    return list(sampler)


@quick
@given(counts, batch_sizes, seeds, epochs)
def test_one_process_sees_every_sample_once_an_epoch(count, batch_size, seed, epoch):
    seen = order(count, epoch, batch_size=batch_size, seed=seed)
    assert sorted(seen[:count]) == list(range(count))
    lonely = batch_size > 1 and count % batch_size == 1
    assert seen[count:] == (seen[:1] if lonely else [])  # the companion of a last batch of one is the first sample


@quick
@given(counts, batch_sizes, replicas, seeds, epochs)
def test_ranks_interleaved_are_the_order_of_one_process(count, batch_size, world, seed, epoch):
    alone = order(count, epoch, seed=seed)
    shares = [
        order(count, epoch, batch_size=batch_size, num_replicas=world, rank=rank, seed=seed) for rank in range(world)
    ]
    size = -(-count // world)
    interleaved = [share[j] for j in range(size) for share in shares]
    assert interleaved[:count] == alone
    # the first few stand in again where N does not divide
    assert interleaved[count:] == (alone * world)[: len(interleaved) - count]
    assert {len(share) for share in shares} == {size + (batch_size > 1 and size % batch_size == 1)}


@quick
@given(st.integers(2, 60), batch_sizes, replicas)
def test_in_order_originals_are_the_samples_whose_position_belongs_to_the_rank(count, batch_size, world):
    originals = []
    for rank in range(world):
        share = order(count, batch_size=batch_size, num_replicas=world, rank=rank, shuffle=False)
        originals += [position for position in share if position % world == rank]
        assert len(share) == -(-count // world)  # no companion where nothing is trained
    assert sorted(originals) == list(range(count))


def test_in_order_means_in_order_whatever_the_epoch_and_seed():
    assert order(9, epoch=5, shuffle=False, seed=3) == list(range(9))


def test_order_is_a_function_of_seed_and_epoch():
    orders = {(seed, epoch): tuple(order(50, epoch, seed=seed)) for seed in range(5) for epoch in range(5)}
    again = {(seed, epoch): tuple(order(50, epoch, seed=seed)) for seed in range(5) for epoch in range(5)}
    assert orders == again
    # all differ, also (seed, epoch + 1) and (seed + 1, epoch), which DistributedSampler would make equal
    assert len(set(orders.values())) == 25


def test_a_used_sampler_gives_the_same_order_as_a_fresh_one():
    sampler = EpochSampler(numbers(20), batch_size=4, seed=1)
    first = list(sampler)
    for epoch in (1, 2, 7):
        sampler.set_epoch(epoch)
        assert list(sampler) == list(sampler) == order(20, epoch, batch_size=4, seed=1)
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_shuffling_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    order(30, epoch=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_orders_are_not_far_from_uniform():
    # each sample comes first about equally often over 2000 epochs of 4 samples: 500 ± 5 standard deviations
    sampler, first = EpochSampler(numbers(4), batch_size=2), []
    for epoch in range(2000):
        sampler.set_epoch(epoch)
        first.append(next(iter(sampler)))
    assert all(abs(first.count(n) - 500) < 5 * (2000 * 0.25 * 0.75) ** 0.5 for n in range(4))


@quick
@given(counts, batch_sizes, replicas, epochs, st.data())
def test_position_skips_exactly_what_was_seen(count, batch_size, world, epoch, data):
    rank = data.draw(st.integers(0, world - 1))
    options = {"batch_size": batch_size, "num_replicas": world, "rank": rank, "seed": 4}
    whole = order(count, epoch, **options)
    position = data.draw(st.integers(0, len(whole)))
    assert order(count, epoch, position, **options) == whole[position:]
    sampler = EpochSampler(numbers(count), **options)
    sampler.position = lambda: position
    assert len(sampler) == len(whole)  # the length is that of the whole epoch, as Lightning counts batches


@quick
@given(counts, batch_sizes, replicas, epochs, st.data())
def test_steps_are_the_batches_of_the_order_with_their_place(count, batch_size, world, epoch, data):
    rank = data.draw(st.integers(0, world - 1))
    options = {"batch_size": batch_size, "num_replicas": world, "rank": rank, "seed": 4}
    whole = order(count, epoch, **options)
    sampler = StepSampler(numbers(count), **options)
    sampler.set_epoch(epoch)
    steps = list(sampler)
    assert [n for step in steps for n in step] == whole
    assert [len(step) for step in steps[:-1]] == [batch_size] * (len(steps) - 1)
    assert [step.position for step in steps] == [(4, epoch, n) for n in range(len(steps))]
    assert len(sampler) == len(steps)
    seen = data.draw(st.integers(0, len(steps)))  # a run resumes within an epoch
    sampler.position = lambda: seen * batch_size
    resumed = list(sampler)
    assert [(list(a), a.position) for a in resumed] == [(list(b), b.position) for b in steps[seen:]]
    for step in steps[:2]:
        again = pickle.loads(pickle.dumps(step))
        assert (list(again), again.position) == (list(step), step.position)


def test_position_is_read_when_the_iteration_starts():
    sampler = EpochSampler(numbers(10), batch_size=2)
    seen = 0
    sampler.position = lambda: seen
    whole = list(sampler)
    seen = 4
    assert list(sampler) == whole[4:]


@pytest.mark.parametrize(
    ("count", "batch_size", "world", "expected"),
    [
        (9, 4, 1, [4, 4, 2]),  # a trailing one gets a companion
        (8, 4, 1, [4, 4]),
        (10, 4, 1, [4, 4, 2]),
        (3, 1, 1, [1, 1, 1]),  # batches of one are asked for
        (9, 2, 2, [2, 2, 2]),  # 5 samples a rank
        (1, 4, 1, [2]),
    ],
)
def test_no_training_batch_has_one_sample_by_accident(count, batch_size, world, expected):
    data = numbers(count)
    sampler = EpochSampler(data, batch_size, num_replicas=world)
    loader = ResumableLoader(data, batch_size, sampler=sampler, collate_fn=identity_collate)
    assert [len(batch.index) for batch in loader] == expected
    assert len(loader) == len(expected)


class Recorder(ArrayDataset):
    """Notes every read."""

    def __init__(self, count):
        super().__init__(torch.arange(count))
        self.reads = 0

    def __len__(self):
        self.reads += 1  # IndexedDataset measures before it reads a batch
        return super().__len__()


def test_a_loader_starts_with_the_first_batch_that_is_asked_for():
    data = IndexedDataset(Recorder(6))
    sampler = EpochSampler(data, batch_size=2)
    loader = ResumableLoader(data, 2, sampler=sampler, collate_fn=identity_collate)
    before = data.dataset.reads
    batches = iter(loader)
    assert data.dataset.reads == before
    sampler.set_epoch(3)  # Lightning restores epoch and position after it asked for the iterator
    sampler.position = lambda: 2
    rest = [n for batch in batches for n in batch.index.tolist()]
    assert rest == order(6, 3, 2)
    assert data.dataset.reads > before


def test_a_loader_with_workers_starts_no_process_before_the_first_batch():
    data = numbers(6)
    sampler = EpochSampler(data, batch_size=2)
    loader = ResumableLoader(
        data, 2, sampler=sampler, collate_fn=identity_collate, num_workers=1, persistent_workers=True
    )
    batches = iter(loader)
    assert loader._iterator is None
    sampler.position = lambda: 4
    assert [batch.index.tolist() for batch in batches] == [order(6)[4:]]
    sampler.position = int
    assert [n for batch in loader for n in batch.index.tolist()] == order(6)  # and again, by the same worker


def test_a_loader_may_be_left_and_started_again():
    data = numbers(6)
    loader = ResumableLoader(data, 2, sampler=EpochSampler(data, 2), collate_fn=identity_collate)
    first = next(iter(loader)).index.tolist()
    assert first == next(iter(loader)).index.tolist() == order(6)[:2]


def test_a_loader_has_an_empty_state_so_that_lightning_does_not_warn():
    data = numbers(6)
    loader = ResumableLoader(data, 2, sampler=EpochSampler(data, 2), collate_fn=identity_collate)
    assert loader.state_dict() == {}
    loader.load_state_dict({})
    assert sum(len(batch.index) for batch in loader) == 6


# -- arrays ------------------------------------------------------------------------------------------------------------


@quick
@given(st.integers(1, 40), batch_sizes, st.integers(0, 3), seeds)
def test_batches_cut_out_of_arrays_are_the_collated_ones(count, batch_size, epoch, seed):
    dataset = IndexedDataset(ArrayDataset(torch.arange(count)[:, None] * 7, torch.arange(count) % 3))

    def read(loader, *leading):
        sampler = EpochSampler(dataset, batch_size, seed=seed)
        sampler.set_epoch(epoch)
        sampler.position = lambda: min(batch_size, count) if epoch else 0
        options = {} if leading else {"collate_fn": identity_collate}
        return list(loader(*leading, dataset, batch_size=batch_size, sampler=sampler, **options))

    ours, theirs = read(MemoryLoader, dataset.dataset), read(ResumableLoader)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@each_device
@pytest.mark.parametrize("asked", [None, True])
def test_batches_of_arrays_on_the_device_are_those_of_the_memory(device, asked):
    arrays = ArrayDataset(torch.arange(40)[:, None] * 7, torch.arange(40) % 3)
    placed, dataset = to_device_if_fits(arrays, torch.device(device), asked), IndexedDataset(arrays)
    assert placed.inputs.device.type == device
    ours, theirs = (
        MemoryLoader(each, dataset, 16, sampler=EpochSampler(dataset, 16, seed=3)) for each in (placed, arrays)
    )
    for one, other in zip(ours, theirs, strict=True):
        assert {each.device.type for each in one} == {device}
        assert all(torch.equal(a.cpu(), b) for a, b in zip(one, other, strict=True))


def test_arrays_stay_where_an_accelerator_has_no_room_with_one_warning(monkeypatch):
    arrays, device = ArrayDataset(torch.zeros(100, 8, dtype=torch.uint8)), torch.device("cuda")  # 800 + 800 bytes
    assert to_device_if_fits(arrays, torch.device("cpu"), True) is arrays
    for left, asked, warns in [(1599, True, True), (6399, None, False), (10**9, False, False)]:
        monkeypatch.setattr("diet_lightning.data.loaders.available_memory", lambda device, left=left: left)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert to_device_if_fits(arrays, device, asked) is arrays
        assert len(caught) == warns
        if warns:
            assert "does not fit into the 0.00 GiB that cuda has left" in str(caught[0].message)
            assert "`on_device` to false" in str(caught[0].message)


@pytest.mark.parametrize(("left", "asked"), [(1600, True), (6400, None)])
def test_arrays_go_to_the_accelerator_where_they_fit_and_back_out_where_they_do_not_after_all(monkeypatch, left, asked):
    arrays = ArrayDataset(torch.zeros(100, 8, dtype=torch.uint8))
    monkeypatch.setattr("diet_lightning.data.loaders.available_memory", lambda device: left)
    sent = []

    def to(self, device):
        sent.append(device.type)
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(torch.Tensor, "to", to)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert to_device_if_fits(arrays, torch.device("cuda"), asked) is arrays
    assert sent == ["cuda"]
    assert len(caught) == bool(asked)
