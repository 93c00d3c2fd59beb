# %% [markdown]
# # Other backbones: a timm model, and a custom module
#
# The backbone is a name or any `torch.nn.Module` that returns embeddings (B, K); the recipe around it stays the same.
# Here timm's `resnet10t` and a custom ConvMixer train on scikit-learn's digits without labels.
#
# Expect the probe at 95 % of the held-out digits with resnet10t and at 94 % with the ConvMixer: 15 epochs each, together
# in 100 seconds of CPU time (torch 2.15, two CPU cores).

# %%
import os

import torch
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor, nn

from diet_lightning import DIETDataModule, DIETModule, FiniteGuard, OnlineLinearProbe

EPOCHS = int(os.environ.get("DIET_EPOCHS", "15"))


# %%
class Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def conv_mixer(width: int = 96, depth: int = 4, patch: int = 2) -> nn.Module:
    """ConvMixer (Trockman and Kolter, 2022) for gray images: ``(B, 1, H, W)`` to ``(B, width)``, no classifier."""

    def activated(layer: nn.Module) -> nn.Module:
        return nn.Sequential(layer, nn.GELU(), nn.BatchNorm2d(width))

    blocks = [
        nn.Sequential(
            Residual(activated(nn.Conv2d(width, width, 3, padding="same", groups=width))),
            activated(nn.Conv2d(width, width, 1)),
        )
        for _ in range(depth)
    ]
    return nn.Sequential(activated(nn.Conv2d(1, width, patch, patch)), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


# %%
def train(backbone: str | nn.Module, name: str, lr: float, image_size: int | None) -> Trainer:
    trainer = Trainer(
        max_epochs=EPOCHS,
        default_root_dir=f"runs/03_timm_backbone/{name}",
        logger=False,
        callbacks=[OnlineLinearProbe(), FiniteGuard()],
    )
    model = DIETModule(backbone, lr=lr)
    trainer.fit(model, DIETDataModule("digits", batch_size=128, image_size=image_size))
    accuracy = trainer.callback_metrics["val/probe_top1"].item()
    print(f"{name}: linear probe on {model.embed_dim} features gets {accuracy:.1%} of the held-out digits right")
    return trainer


# %% [markdown]
# A name goes through `timm.create_model` with random weights; channels and image size come from the data. A network that
# divides its input by 32 would see a digit of 8×8 pixels as less than one position, hence the larger images.

# %%
seed_everything(0)
train("timm/resnet10t", "resnet10t", lr=4e-3, image_size=16)

# %% [markdown]
# A module is used unchanged: build it for the data's channels and without a classifier. (`create_backbone(module,
# input_shape, classifier="head")` removes one.)

# %%
seed_everything(0)
trainer = train(conv_mixer(), "conv_mixer", lr=1e-2, image_size=None)

# %% [markdown]
# A checkpoint holds weights and plain values, no code. A custom module is therefore passed again, untrained.

# %%
checkpoint = trainer.checkpoint_callback.best_model_path
loaded = DIETModule.load_from_checkpoint(checkpoint, map_location="cpu", backbone=conv_mixer())
digit = torch.rand(1, *loaded.hparams.input_shape)
same = torch.equal(loaded.eval()(digit), trainer.lightning_module.cpu().eval()(digit))
print(f"Loaded from {checkpoint}: {'the same' if same else 'OTHER'} embeddings")
