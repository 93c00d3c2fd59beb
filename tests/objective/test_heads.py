"""The kinds of head against the dense one, torch's own AdamW and each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.distributed as dist
from helpers import CUDA, TinyNet, assert_near, each_device, image_data
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy

from diet_lightning import DIETModule
from diet_lightning.errors import CheckpointError, ConfigurationError, DataError
from diet_lightning.objective import DatumHead, FusedHead, HeadConfig, SampledHead, ShardedHead
from diet_lightning.objective.loss import datum_cross_entropy
from diet_lightning.objective.moments import Moments8bit
from diet_lightning.objective.sharded import _ShardedLoss
from diet_lightning.training.trainer_checks import check_head

STEPS = 20


def trained(head_class, autocast=None, accumulate=1, steps=STEPS, device="cpu", exact=False, **options):
    """A linear map and a head, trained for some steps at a warming-up and cooling-down rate; weights and losses."""
    torch.manual_seed(0)
    inputs, net = torch.randn(64, 12), torch.nn.Linear(12, 6)
    head = head_class(64, 6, 0.7, **options)
    inputs, net, head = (each.to(device) for each in (inputs, net, head))
    if exact:
        inputs, net, head = inputs.double(), net.double(), head.double()
    optimizer = torch.optim.AdamW(
        [{"params": net.parameters()}, {"params": head.parameters(), "weight_decay": 0.1, "eps": 1e-6}], lr=1e-2
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / 5, 1 - step / (2 * STEPS)))
    if hasattr(head, "attach"):
        head.attach(optimizer)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        for part in range(accumulate):
            index = torch.randint(64, (8,), generator=torch.Generator().manual_seed(step * accumulate + part))
            index = index.to(device)
            with torch.autocast(device, dtype=torch.bfloat16, enabled=autocast is not None):
                loss = head(net(inputs[index]), index) / accumulate
            loss.backward()
            losses.append(loss.item())
        optimizer.step()
        schedule.step()
    return head, net, optimizer, losses


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Several chunks even at a size that a test can afford."""
    for room in ("loss", "fused", "sharded"):
        monkeypatch.setattr(f"diet_lightning.objective.{room}.chunk_rows", lambda batch, embed_dim, device: 17)


@each_device
@pytest.mark.parametrize(
    ("kind", "options", "bound"),
    [
        (DatumHead, {}, 1e-5),
        (FusedHead, {}, 1e-5),
        (FusedHead, {"moment_bits": 8}, 0.1),
        (SampledHead, {"num_sampled": 64}, 1e-5),  # all rows
        (ShardedHead, {}, 1e-5),
    ],
    ids=["dense", "fused", "fused 8 bits", "sampled", "sharded"],
)
def test_every_kind_trains_as_float64_does_on_the_cpu(kind, options, bound, device, alone, monkeypatch):
    monkeypatch.setattr(ShardedHead, "is_sharded", True)  # with its messages, though of one rank
    start, _, _, _ = trained(DatumHead, steps=0, exact=True)
    exact, exact_net, _, exact_losses = trained(DatumHead, exact=True)
    head, net, _, losses = trained(kind, device=device, **options)
    assert head.weight.device.type == device
    assert_near(head.weight, exact.weight, start.weight, bound)
    torch.testing.assert_close(net.weight.cpu().double(), exact_net.weight, rtol=bound, atol=bound / 10)
    np.testing.assert_allclose(losses, exact_losses, rtol=bound)


# in 16 bits the gradients of several batches are rounded apart or together: test_low_precision.py bounds the difference
@each_device
@pytest.mark.parametrize(("autocast", "accumulate"), [(None, 1), (None, 3), (torch.bfloat16, 1)])
@pytest.mark.parametrize("options", [{}, {"normalize_rows": True, "normalize_features": True, "temperature": 0.2}])
def test_fused_steps_as_adamw_does(autocast, accumulate, options, monkeypatch, device):
    if autocast is not None:
        # the same gradients for both, so that what differs is the step
        monkeypatch.setattr("diet_lightning.objective.loss.PLAIN_LOGITS", 0)
    dense, dense_net, dense_optimizer, dense_losses = trained(DatumHead, autocast, accumulate, device=device, **options)
    fused, fused_net, fused_optimizer, fused_losses = trained(FusedHead, autocast, accumulate, device=device, **options)
    torch.testing.assert_close(fused.weight, dense.weight, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(fused_net.weight, dense_net.weight, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(fused_losses, dense_losses, rtol=1e-6)
    assert fused.weight.grad is None
    ours, theirs = fused_optimizer.state[fused.weight], dense_optimizer.state[dense.weight]
    assert ours.keys() == theirs.keys()
    assert int(ours["step"]) == int(theirs["step"]) == STEPS
    for name in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-7)


def stepped(head_class, scale, steps=STEPS, device="cpu", **options):
    """W after AdamW's steps on fixed embeddings, and the largest change of a number in one step."""
    torch.manual_seed(0)
    features, head = torch.rand(16, len(scale)) * scale, head_class(700, len(scale), **options)
    features, head = features.to(device), head.to(device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    if hasattr(head, "attach"):
        head.attach(optimizer)
    moved = 0.0
    for step in range(steps):
        before = head.weight.detach().clone()
        index = torch.randint(700, (16,), generator=torch.Generator().manual_seed(step)).to(device)
        optimizer.zero_grad()
        head(features, index).backward()
        optimizer.step()
        moved = max(moved, float((head.weight.detach() - before).abs().max()))
    return head, optimizer, moved


@each_device
@pytest.mark.parametrize("scale", [torch.ones(100), torch.logspace(0, -4, 100)], ids=["even", "four decades"])
def test_moments_in_8_bits_move_w_about_as_in_32(scale, device):
    (dense, _, most), (eight, optimizer, most_8) = (
        stepped(kind, scale, device=device, **options)
        for kind, options in ((DatumHead, {}), (FusedHead, {"moment_bits": 8}))
    )
    start = stepped(DatumHead, scale, steps=0, device=device)[0].weight
    assert most_8 < 2 * most  # a second moment that is rounded to 0 makes it thousands of times as much
    deviation = (eight.weight - dense.weight).norm() / (dense.weight - start).norm()
    assert 1e-4 < deviation < 0.1, deviation
    held = sum(part.nbytes for name, part in optimizer.state[eight.weight].items() if name != "step")
    assert held == 2 * (700 * 100 + 4 * 700)


# down to 1e-18: the squares of smaller numbers are no normal float32, in AdamW's own moments neither
@given(st.integers(0, 10**6), st.floats(-12, 0), st.floats(-12, 10))
def test_moments_in_8_bits_are_close_and_no_second_one_is_lost(seed, decades, size):
    generator = torch.Generator().manual_seed(seed)
    moments = Moments8bit(torch.zeros(5, 40))
    state = moments.new()
    spread = 10 ** (torch.rand(2, 5, 40, generator=generator) * decades + size / 2)
    sign = torch.randint(2, (5, 40), generator=generator) * 2 - 1
    with moments.rows(state, 0, 5) as (average, square):
        assert not average.any()
        assert not square.any()
        average += sign * spread[0]
        square += spread[1] ** 2
    with moments.rows(state, 0, 5) as (average, square):
        found, root = average.clone(), square.sqrt()
    assert (square > 0).all()
    for one, other in ((found, sign * spread[0]), (root, spread[1])):
        most = other.abs().amax(1, keepdim=True)
        assert ((one - other).abs() <= other.abs() / 16 + most * 2.0**-9 / 448 * 1.01).all()


def test_moments_in_8_bits_are_loaded_as_they_are():
    head, optimizer, _ = stepped(FusedHead, torch.ones(6), moment_bits=8)
    fresh = FusedHead(700, 6, moment_bits=8)
    other = torch.optim.AdamW(fresh.parameters())
    fresh.attach(other)
    other.load_state_dict(optimizer.state_dict())
    for name, value in optimizer.state[head.weight].items():
        assert other.state[fresh.weight][name].dtype == value.dtype
        assert torch.equal(other.state[fresh.weight][name], value)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_run_with_moments_in_8_bits_resumes_exactly(make_trainer, tmp_path):
    def fit(checkpoint=None, **options):
        seed_everything(3)
        module = DIETModule(TinyNet(), lr=1e-2, **options)
        every = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
        trainer = make_trainer(max_epochs=3, callbacks=[every], enable_checkpointing=True)
        trainer.fit(module, image_data(), ckpt_path=checkpoint)
        return module

    eight = HeadConfig("fused", moment_bits=8)
    whole, resumed = fit(head=eight), fit(tmp_path / "epoch=0.ckpt", head=eight)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(
        CheckpointError, match=r"trained with head.moment_bits=8, but this run has 32: .* head.kind=fused"
    ):
        fit(tmp_path / "epoch=0.ckpt")


def test_moments_in_8_bits_are_for_fused_only():
    with pytest.raises(ConfigurationError, match=r"32, or 8 with head.kind='fused', but got 8 with head.kind='dense'"):
        HeadConfig(moment_bits=8)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_sampled_of_all_rows_steps_as_adamw_does(accumulate):
    dense, dense_net, _, dense_losses = trained(DatumHead, None, accumulate)
    sampled, sampled_net, _, sampled_losses = trained(SampledHead, None, accumulate, num_sampled=64)
    torch.testing.assert_close(sampled.weight, dense.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sampled_net.weight, dense_net.weight, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sampled_losses, dense_losses, rtol=1e-5)


@pytest.fixture
def alone(tmp_path, device):
    """A process group of one."""
    there = {"device_id": torch.device(device, 0)} if device == "cuda" else {}
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{tmp_path}/meet", rank=0, world_size=1, **there)
    yield
    dist.destroy_process_group()


@each_device
@pytest.mark.parametrize("unit_rows", [False, True])
def test_sharded_over_one_rank_is_the_dense_loss(alone, tmp_path, unit_rows, device):
    head = ShardedHead(30, 4, 0.6, normalize_rows=unit_rows).double().to(device)
    features = torch.randn(5, 4, device=device).double().requires_grad_()
    index = torch.tensor([0, 29, 29, 7, 3], device=device)
    losses = _ShardedLoss.apply(features, head.weight, index, head, torch.float64)
    weights = torch.rand(5, device=device).double()
    ours = torch.autograd.grad((losses * weights).sum(), (features, head.weight))
    exact = datum_cross_entropy(features, head.weight, index, 0.6, "none", unit_rows)
    theirs = torch.autograd.grad((exact * weights).sum(), (features, head.weight))
    torch.testing.assert_close(losses, exact)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    assert torch.equal(head.state_to_save(head.weight.detach(), tmp_path), head.weight.cpu())


def test_fused_trains_on_frozen_embeddings_too():
    head = FusedHead(30, 4)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.1)
    head.attach(optimizer)
    before = head.weight.detach().clone()
    head(torch.randn(5, 4), torch.arange(5)).backward()
    optimizer.step()
    assert not torch.equal(head.weight, before)


@pytest.mark.parametrize("head_class", [FusedHead, SampledHead])
def test_a_head_that_steps_by_itself_must_be_attached(head_class):
    head = head_class(30, 4)
    with pytest.raises(ConfigurationError, match=r"call `attach\(optimizer\)` before training"):
        head(torch.randn(5, 4), torch.arange(5))
    with torch.no_grad():
        assert torch.isfinite(head(torch.randn(5, 4), torch.arange(5)))


@pytest.mark.parametrize("head_class", [FusedHead, SampledHead])
def test_what_a_broken_run_left_is_not_stepped_on(head_class):
    head = head_class(30, 4)
    head.attach(torch.optim.AdamW(head.parameters()))
    head(torch.randn(5, 4), torch.arange(5)).backward()  # and then the run breaks off
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.1)
    head.attach(optimizer)
    before = head.weight.detach().clone()
    optimizer.step()
    assert torch.equal(head.weight, before)


@pytest.mark.parametrize("head_class", [FusedHead, SampledHead, ShardedHead])
def test_a_wrong_index_is_refused_by_every_kind(head_class):
    with torch.no_grad(), pytest.raises(DataError, match=r"0 … 29, but got 30"):
        head_class(30, 4)(torch.randn(2, 4), torch.tensor([0, 30]))


@pytest.mark.parametrize("head_class", [FusedHead, SampledHead, ShardedHead])
def test_every_kind_starts_from_the_same_rows(head_class, monkeypatch):
    torch.manual_seed(3)
    whole = DatumHead(50, 4).weight
    monkeypatch.setattr("diet_lightning.objective.dense.AT_ONCE", 7 * 4)
    torch.manual_seed(3)
    assert torch.equal(head_class(50, 4).weight, whole)


# -- sampled -----------------------------------------------------------------------------------------------------------


def test_sampled_estimates_of_the_softmax_sum_and_of_the_mean_are_unbiased():
    torch.manual_seed(1)
    head = SampledHead(40, 3, label_smoothing=0.0, num_sampled=5).double()
    features, index = torch.randn(4, 3).double(), torch.tensor([3, 3, 17, 39])
    logits = features @ head.weight.detach().T
    with torch.no_grad():
        # without smoothing the loss is log(estimate) - z_n, so that its exponential is unbiased
        draws = torch.stack([head.losses(features, index) for _ in range(5_000)]).exp()
    expected = logits.exp().sum(1) / logits.gather(1, index[:, None])[:, 0].exp()
    error = (draws.mean(0) - expected) / (draws.std(0) / len(draws) ** 0.5)
    assert error.abs().max() < 4.5
    # with all the smoothing, log(estimate) less the estimated mean: the same draws give the mean
    means = []
    with torch.no_grad():
        for draw in range(5_000):
            losses = []
            for head.label_smoothing in (0.0, 0.5):
                torch.manual_seed(draw)
                losses.append(head.losses(features, index))
            at_target = logits.gather(1, index[:, None])[:, 0]
            means.append(at_target - 2 * (losses[1] - losses[0]))
    means = torch.stack(means)
    error = (means.mean(0) - logits.mean(1)) / (means.std(0) / len(means) ** 0.5)
    assert error.abs().max() < 4.5


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.integers(0, 1000))
def test_sampled_row_that_is_touched_at_every_step_moves_as_adamw_does(seed):
    torch.manual_seed(seed)
    head = SampledHead(20, 4, num_sampled=1000)  # at that number every row is drawn
    twin = torch.nn.Parameter(head.weight.detach().clone())
    ours, theirs = (torch.optim.AdamW([p], lr=0.05, weight_decay=0.3) for p in (head.weight, twin))
    head.attach(ours)
    for _ in range(8):
        head(torch.randn(6, 4), torch.randint(20, (6,))).backward()
        ids, rows = head._pending[0]
        twin.grad = torch.zeros_like(twin).index_add_(0, ids, rows.grad)
        ours.step()
        theirs.step()
    torch.testing.assert_close(head.weight, twin, rtol=1e-5, atol=1e-6)


def test_sampled_draws_as_many_as_asked_for_each_once_and_evenly():
    head = SampledHead(60, 2, num_sampled=30)
    draws = [head._draw() for _ in range(4000)]
    assert all(torch.equal(draw, draw.unique()) for draw in draws)
    sizes = torch.tensor([len(draw) for draw in draws]).double()
    assert sizes.mean() + 4.5 * sizes.std() / 4000**0.5 >= 30
    assert sizes.mean() < 31.5
    seen = torch.bincount(torch.cat(draws), minlength=60) / len(draws)
    assert (seen - sizes.mean() / 60).abs().max() < 4.5 * (0.25 / len(draws)) ** 0.5


@each_device
@pytest.mark.parametrize("unit", [False, True])
def test_sampled_of_all_rows_is_exact(unit, device):
    torch.manual_seed(0)
    options = {"label_smoothing": 0.6, "normalize_rows": unit, "normalize_features": unit}
    sampled, dense = (
        head.to(device) for head in (SampledHead(50, 4, num_sampled=50, **options), DatumHead(50, 4, **options))
    )
    dense.load_state_dict({"weight": sampled.weight.detach().clone()})
    sampled.attach(torch.optim.AdamW(sampled.parameters()))
    inputs, index = torch.randn(7, 4, device=device), torch.tensor([0, 49, 3, 3, 3, 20, 1], device=device)
    gradients = []
    for head in (sampled, dense):
        features = inputs.clone().requires_grad_()
        head(features, index).backward()
        gradients.append(features.grad)
    torch.testing.assert_close(*gradients)
    ids, rows = sampled._pending[0]
    torch.testing.assert_close(rows.grad, dense.weight.grad[ids])


def test_sampled_row_that_was_missed_catches_up_its_decay():
    head = SampledHead(1000, 4, num_sampled=1)
    optimizer = torch.optim.AdamW([head.weight], lr=0.05, weight_decay=0.3)
    head.attach(optimizer)
    before = head.weight.detach().clone()
    rates = [0.05, 0.04, 0.02]
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        head(torch.randn(6, 4), torch.arange(6)).backward()
        optimizer.step()
    missed = (head.last_step == 0).nonzero()[:, 0]
    assert torch.equal(head.weight[missed], before[missed])
    head.apply_pending_decay()
    factor = np.prod([1 - 0.3 * rate for rate in rates])
    torch.testing.assert_close(head.weight[missed], before[missed] * factor)
    caught_up = head.weight.detach().clone()
    head.apply_pending_decay()
    assert torch.equal(head.weight, caught_up)


def test_sampled_rows_may_stay_where_they_are():
    head = SampledHead(30, 4, num_sampled=8, on_cpu=True)
    head.to(torch.device("meta"))
    assert {value.device.type for value in head.state_dict().values()} == {"cpu"}


class StopAfter(Callback):
    """Ends a run of four epochs early, as an interruption would, with a checkpoint of that moment."""

    def __init__(self, epochs, path):
        self.epochs, self.path = epochs, path

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch + 1 == self.epochs:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


# -- in a Trainer ------------------------------------------------------------------------------------------------------


@each_device
@pytest.mark.parametrize("kind", ["fused", "sharded"])
def test_kind_changes_nothing_but_the_memory(make_trainer, kind, device):
    modules = {}
    for name in ("dense", kind):
        seed_everything(2, verbose=False)
        modules[name] = DIETModule(TinyNet(), head=HeadConfig(name, 3e-3, 0.2, 1e-7))
        trainer = make_trainer(max_epochs=2, accumulate_grad_batches=2, accelerator=device)
        trainer.fit(modules[name], image_data(52))
        group = trainer.optimizers[0].param_groups[1]
        assert (group["name"], group["weight_decay"], group["eps"]) == ("head", 0.2, 1e-7)
        assert group["initial_lr"] == pytest.approx(3e-3 * 32 / 256)
    dense = modules["dense"].state_dict()
    for name, value in modules[kind].state_dict().items():
        torch.testing.assert_close(value, dense[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["dense", "fused", "sampled", "sharded"])
@pytest.mark.parametrize(
    ("device", "precision"),
    [("cpu", "bf16-mixed"), *(pytest.param("cuda", name, marks=CUDA.marks) for name in ("bf16-mixed", "16-mixed"))],
)
def test_a_run_in_16_bits_stays_near_one_in_float64(make_trainer, kind, device, precision):
    if precision == "16-mixed" and kind in ("fused", "sampled"):
        kind = "dense"  # the others refuse the loss scaler, see below

    def fit(kind, lr=1e-2, **options):
        seed_everything(2, verbose=False)
        module = DIETModule(TinyNet(dropout=0.0), head=HeadConfig(kind), lr=lr)
        make_trainer(max_epochs=4, **options).fit(module, image_data(52, strength=0))
        return module

    start = fit("dense", lr=0.0, precision="64-true").head.weight.detach()
    exact = fit("dense", precision="64-true").head.weight.detach()
    assert_near(fit(kind, accelerator=device, precision=precision).head.weight, exact, start, 0.02)


@pytest.mark.parametrize("start", ["dense", "fused", "sharded"])
def test_a_run_may_go_on_with_another_kind_of_head(make_trainer, tmp_path, start):
    def fit(kind, epochs=4, ckpt_path=None):
        seed_everything(2, verbose=False)
        module = DIETModule(TinyNet(), head=HeadConfig(kind))
        trainer = make_trainer(max_epochs=4, callbacks=[StopAfter(epochs, tmp_path / f"{epochs}.ckpt")])
        trainer.fit(module, image_data(52), ckpt_path=ckpt_path, weights_only=True)
        return module

    whole = fit("dense")
    fit(start, 2)
    for kind in ("dense", "fused", "sharded"):
        resumed = fit(kind, ckpt_path=tmp_path / "2.ckpt")
        torch.testing.assert_close(resumed.head.weight, whole.head.weight, rtol=1e-6, atol=1e-6)


def test_sampled_resumes_bit_by_bit_and_leaves_rows_with_their_decay_applied(make_trainer, tmp_path):
    def fit(ckpt_path=None, stop=9):
        seed_everything(2, verbose=False)
        module = DIETModule(TinyNet(), head=HeadConfig("sampled", num_sampled=8))
        trainer = make_trainer(max_epochs=4, callbacks=[StopAfter(stop, tmp_path / "run.ckpt")])
        trainer.fit(module, image_data(52), ckpt_path=ckpt_path, weights_only=True)
        return module

    whole = fit()
    fit(stop=2)
    resumed = fit(tmp_path / "run.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert torch.equal(whole.head.last_decay, torch.full_like(whole.head.last_decay, float(whole.head.decay)))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("fused", {"gradient_clip_val": 1.0}, r"head.kind='fused' .*gradient_clip_val=1.0.* leave clipping out"),
        ("sampled", {"gradient_clip_val": 1.0}, r"head.kind='sampled' .*gradient_clip_val=1.0"),
        ("fused", {"devices": 2, "strategy": "ddp_fork"}, r"serves one process, but there are 2: .*sharded or dense"),
        ("sharded", {"devices": 2, "strategy": "ddp_fork", "gradient_clip_val": 0.5}, r"one norm over all ranks"),
    ],
)
def test_trainer_options_that_a_head_cannot_serve_are_refused(make_trainer, kind, options, message):
    with pytest.raises(Exception, match=message):  # a forked process wraps it
        make_trainer(**options).fit(DIETModule(TinyNet(), head=HeadConfig(kind)), image_data())


def test_loss_scaler_is_refused_where_the_head_steps_by_itself():
    class OfFp16:
        world_size, precision, gradient_clip_val = 1, "16-mixed", None

    for kind in ("fused", "sampled"):
        with pytest.raises(ConfigurationError, match=r"precision=16-mixed skips steps .* bf16-mixed"):
            check_head(kind, OfFp16())
    for kind in ("dense", "sharded"):
        check_head(kind, OfFp16())


def test_sharded_asks_for_ddp():
    class Spread:
        world_size, precision, gradient_clip_val, gradient_clip_algorithm = 2, "32-true", None, None
        strategy = object()

    with pytest.raises(ConfigurationError, match=r"head.kind='sharded' .*object would not keep .* `strategy` to ddp"):
        check_head("sharded", Spread())
    check_head("dense", Spread())
    Spread.strategy, Spread.gradient_clip_val = DDPStrategy(), 0.5
    with pytest.raises(ConfigurationError, match=r"gradient_clip_val=0.5 needs one norm over all ranks"):
        check_head("sharded", Spread())
    Spread.gradient_clip_algorithm = "value"
    check_head("sharded", Spread())
    Spread.precision = "16-mixed"
    with pytest.raises(ConfigurationError, match="precision=16-mixed"):
        check_head("sharded", Spread())
    with pytest.raises(ConfigurationError, match=r"serves one process, but there are 2"):
        check_head("fused", Spread())


def test_unknown_kind_and_rows_that_may_not_stay_are_refused():
    with pytest.raises(ConfigurationError, match=r"`head.kind` to be one of \['dense', .*\], but got 'disk'"):
        HeadConfig("disk")
    with pytest.raises(ConfigurationError, match=r"`head.on_cpu` to be False with head.kind='dense'"):
        HeadConfig(on_cpu=True)
    with pytest.raises(ConfigurationError, match="`num_sampled` to be at least 1, but got 0"):
        SampledHead(10, 2, num_sampled=0)


def test_a_dense_checkpoint_does_not_go_on_sampled(make_trainer, tmp_path):
    trainer = make_trainer(max_epochs=1)
    trainer.fit(DIETModule(TinyNet()), image_data())
    trainer.save_checkpoint(tmp_path / "dense.ckpt")
    with pytest.raises(CheckpointError, match=r"head\.last_step.*`head.kind` it was trained with"):
        make_trainer().fit(
            DIETModule(TinyNet(), head=HeadConfig("sampled")), image_data(), ckpt_path=tmp_path / "dense.ckpt"
        )
