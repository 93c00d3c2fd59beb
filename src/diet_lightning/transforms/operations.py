"""Image operations on whole batches, on the batch's own device: every sample has its own parameters.

Values of floats are in [0, 1], and the results are torchvision's for one image with the same parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from diet_lightning.transforms.geometry import crop_image

LUMA = (0.2989, 0.587, 0.114)  # weights of red, green and blue in torchvision's grayscale


def apply_masked(
    operation: Callable[..., Tensor], images: Tensor, mask: Tensor, parameters: Sequence[Tensor]
) -> Tensor:
    """Changes some images of a batch in place.

    Args:
        operation: Takes images ``(n, C, H, W)`` and their parameters; its result is broadcast over the channels.
        images: Shape ``(B, C, H, W)``.
        mask: Which images to change, ``(B,)`` bool, on the CPU.
        parameters: Parameters of all images, ``(B, ...)`` each.

    Returns:
        `images`.
    """
    ids = mask.nonzero()[:, 0].to(images.device, non_blocking=True)
    if len(ids):
        changed = operation(*(each.index_select(0, ids) for each in (images, *parameters)))
        images.index_copy_(0, ids, changed.expand(-1, images.shape[1], -1, -1).to(images.dtype))
    return images


def color_jitter(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor | None = None, hue: Tensor | None = None
) -> Tensor:
    """Brightness, contrast and, of RGB images, saturation and hue, in this order.

    Args:
        images: Shape ``(B, C, H, W)``.
        brightness: Factor, ``(B,)``.
        contrast: Factor, ``(B,)``.
        saturation: Factor, ``(B,)``, or None.
        hue: Shift, ``(B,)``, or None.

    Returns:
        Shape ``(B, C, H, W)``.
    """
    images = adjust_contrast(adjust_brightness(images, brightness), contrast)
    if saturation is not None and hue is not None:
        images = adjust_hue(adjust_saturation(images, saturation), hue)
    return images


def resized_crop(images: Tensor, crop: Tensor, flip: Tensor, out: tuple[int, int]) -> Tensor:
    """Crops each image to its own box, resizes it with antialiased bilinear weights, and mirrors some.

    It computes two batched matrix products, one along each axis.

    Args:
        images: Shape ``(B, C, H, W)``, uint8 or float.
        crop: Boxes ``(B, 4)``: top, left, height, width in pixels.
        flip: Which to mirror, ``(B,)`` bool.
        out: Height and width of the result.

    Returns:
        Shape ``(B, C, *out)``, float; uint8 images are brought to [0, 1].
    """
    count, channels, height, width = images.shape
    scale = 255.0 if images.dtype == torch.uint8 else 1.0
    images = images if images.is_floating_point() else images.float()
    rows = _resize_weights(crop[:, 0], crop[:, 2], torch.zeros_like(flip), height, out[0], scale)  # (B, out_h, H)
    columns = _resize_weights(crop[:, 1], crop[:, 3], flip, width, out[1])  # (B, out_w, W)
    narrow = images.reshape(count, channels * height, width) @ columns.transpose(1, 2).to(images.dtype)
    narrow = narrow.reshape(count, channels, height, out[1])
    return torch.einsum("boh,bchw->bcow", rows.to(images.dtype), narrow)


def resized_crop_of_bytes(images: Tensor, crop: Tensor, flip: Tensor, out: tuple[int, int]) -> Tensor:
    """As `resized_crop`, for uint8 images one after another by torch's kernel for bytes, on the CPU only; returns uint8."""
    boxes = zip(images, crop.int().tolist(), flip.tolist(), strict=True)
    return torch.stack([crop_image(image, box, out, mirror) for image, box, mirror in boxes])


def _resize_weights(start: Tensor, length: Tensor, mirror: Tensor, size: int, out: int, divisor: float = 1.0) -> Tensor:
    """Weights ``(B, out, size)`` of each input pixel in each output pixel: a triangle as wide as the scale, at least 1.

    Args:
        start: First pixel of the box, ``(B,)``.
        length: Length of the box in pixels, ``(B,)``.
        mirror: Whether to reverse the order, ``(B,)`` bool.
        size: Pixels of the input.
        out: Pixels of the output.
        divisor: The weights of an output pixel sum to 1 / `divisor`.
    """
    start, length, mirror = start[:, None, None], length[:, None, None], mirror[:, None, None]
    scale = length / out
    width = scale.clamp(min=1.0)
    place = torch.arange(out, device=start.device, dtype=start.dtype)[:, None]
    center = (torch.where(mirror, out - 1 - place, place) + 0.5) * scale / width  # (B, out, 1), in widths
    pixel = torch.arange(size, device=start.device) - start  # (B, 1, size)
    outside = (pixel < 0) | (pixel >= length)
    pixel = torch.where(outside, torch.inf, (pixel + 0.5) / width)  # far from every centre
    weights = (pixel - center).abs_().neg_().add_(1.0).clamp_(min=0.0)
    return weights.div_(weights.sum(dim=2, keepdim=True).mul_(divisor))


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    factor = factor[:, None, None, None]
    return (factor * images).add_((1.0 - factor) * other).clamp_(0.0, 1.0)


def grayscale(images: Tensor) -> Tensor:
    """Luma of RGB images ``(B, 3, H, W)`` as ``(B, 1, H, W)``; one-channel images unchanged."""
    if images.shape[1] == 1:
        return images
    luma = LUMA[0] * images[:, :1]
    return luma.add_(images[:, 1:2], alpha=LUMA[1]).add_(images[:, 2:], alpha=LUMA[2])


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Scales each image ``(B, C, H, W)`` by its factor ``(B,)``."""
    return (images * factor[:, None, None, None]).clamp_(0.0, 1.0)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blends each image ``(B, C, H, W)`` with the mean of its grayscale by its factor ``(B,)``."""
    return _blend(images, grayscale(images).mean(dim=(1, 2, 3), keepdim=True), factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blends each RGB image ``(B, 3, H, W)`` with its grayscale by its factor ``(B,)``."""
    return _blend(images, grayscale(images), factor)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Shifts the hue of each RGB image ``(B, 3, H, W)`` by ``(B,)``, a fraction of the colour circle."""
    red, green, blue = images.unbind(dim=1)
    value = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = value - low
    # signs in place of comparisons and `where`, which take five times as long as arithmetic on a CPU
    not_red, not_green = (value - red).sign_(), (value - green).sign_()
    hue = (blue - red).add_(chroma, alpha=2.0)  # times chroma, in sixths of the circle, where green is largest
    hue.addcmul_(not_green, (red - green).add_(chroma, alpha=4.0).sub_(hue))  # where blue is
    from_red = green - blue
    hue = from_red.addcmul_(not_red, hue.sub_(from_red))
    hue.div_(chroma.clamp_(min=torch.finfo(images.dtype).tiny)).add_(6.0 * shift[:, None, None])
    # HSV to RGB in closed form: channel n is low + chroma * clamp(|k| - 1, 0, 1), k = n + hue in [-3, 3) modulo 6
    k = hue[:, None] + torch.arange(3.0, -2.0, -2.0, device=images.device)[:, None, None]
    k.sub_((k / 6.0).round_(), alpha=6.0).abs_().sub_(1.0).clamp_(0.0, 1.0)
    return torch.addcmul(low[:, None], chroma[:, None], k)


def gaussian_blur(images: Tensor, sigma: Tensor, kernel: int = 3) -> Tensor:
    """Blurs each image ``(B, C, H, W)`` with its own standard deviation ``(B,)``, reflecting at the borders."""
    half = kernel // 2
    offsets = torch.arange(half + 1, device=images.device)
    taps = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    taps = (taps / (2.0 * taps.sum(dim=1, keepdim=True) - 1.0))[:, :, None, None, None]  # (B, half + 1, 1, 1, 1)
    images = F.pad(images, (half, half, half, half), mode="reflect")
    for dim in (2, 3):
        size = images.shape[dim] - 2 * half
        blurred = images.narrow(dim, half, size) * taps[:, 0]
        for t in range(1, half + 1):
            both = images.narrow(dim, half - t, size) + images.narrow(dim, half + t, size)
            blurred.addcmul_(both, taps[:, t])
        images = blurred
    return images


def erase_boxes(images: Tensor, boxes: Tensor) -> Tensor:
    """Sets a box of each image ``(B, C, H, W)`` to 0, which is the mean colour once images are normalised."""
    top, left, height, width = boxes[:, :, None, None].unbind(dim=1)  # each (B, 1, 1)
    row = torch.arange(images.shape[2], device=images.device)[:, None]
    column = torch.arange(images.shape[3], device=images.device)
    inside = (row >= top) & (row < top + height) & (column >= left) & (column < left + width)
    return images.masked_fill(inside[:, None], 0.0)
