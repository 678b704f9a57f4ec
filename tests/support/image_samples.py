"""Small random image classifiers, and images for them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image


def make_image_classifier(tiny_classifier, kind, dtype=torch.float32, **config):
    """A random model of three layers for images of 3 x 24 x 24 in patches of 8 x 8."""
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 48}
    settings = {"image_size": 24, "patch_size": 8, "num_labels": 3, "layer_norm_eps": 1e-6} | sizes | config
    model = tiny_classifier(kind, **settings)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # tokens and positions, which begin as zeros, count
        for name, parameter in model.named_parameters():
            if name.endswith(("_token", "position_embeddings")):
                parameter.normal_(std=0.5, generator=generator)
    return model.to(dtype)


def make_pixels(model, rows=21, seed=0):
    """Random pixels (rows, channels, height, width) for a model, as its image processor would leave them."""
    config = model.config
    height, width = (config.image_size,) * 2 if isinstance(config.image_size, int) else config.image_size
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, config.num_channels, height, width, generator=generator)


def make_pictures(count, seed=0):
    """Random Pillow images of several sizes and forms, among them with a palette and with transparency."""
    generator = np.random.default_rng(seed)
    modes = ["RGB", "L", "RGBA", "P"]
    pictures = []
    for place in range(count):
        height, width = generator.integers(20, 40, size=2)
        pixels = generator.integers(0, 256, size=(4, 4, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((int(width), int(height)))
        pictures.append(picture.convert(modes[place % len(modes)]))
    return pictures


def train_image_classifier(model, processor, pictures, labels, steps=60):
    """Let a model learn the labels of some pictures; it ends in evaluation mode."""
    pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
    labels = torch.as_tensor(labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(steps):
            rows = torch.randperm(len(labels))[:64]
            loss = torch.nn.functional.cross_entropy(model(pixels[rows]).logits, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def make_lit_pictures(count, seed=0):
    """Distinct noisy pictures with a light in one of three corners, bright or faint, and its corner."""
    generator = np.random.default_rng(seed)
    corners = generator.integers(0, 3, size=count)
    pixels = generator.integers(0, 140, size=(count, 24, 24, 3)).astype(np.float32)
    for picture, corner, light in zip(pixels, corners, generator.uniform(10, 115, size=count), strict=True):
        picture[:8, 8 * corner : 8 * corner + 8] += light
    return [Image.fromarray(picture) for picture in pixels.astype(np.uint8)], corners
