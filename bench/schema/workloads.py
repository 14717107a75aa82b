"""The one table of workloads: tests, benchmarks, tuner checks and plots all read it.

A workload is a pooling layer of a real network with the batch it is trained on. Batches are chosen so that all the arrays of
a training step (x, y and their gradients) take no more than about 250 MB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import pooling
from pooling.geometry.problem import Op, Ties
from pooling.geometry.window import Window
from pooling.operators.base import DataFormat

Array = NDArray[Any]
IntOrTuple = int | tuple[int, ...]
Padding = int | tuple[int, ...]
Preset = Literal["quick", "standard", "full"]
Direction = Literal["forward", "forward_train", "backward", "step"]
Values = Literal["relu", "normal", "nan", "level"]

PRESETS: tuple[Preset, ...] = ("quick", "standard", "full")
DIRECTIONS: tuple[Direction, ...] = ("forward", "forward_train", "backward", "step")
"""Inference; the forward pass that keeps what backward needs; the backward pass; the last two one after the other."""

LARGEST = 200_000
"""Planes of 1 KB in the largest array of :func:`ladder`."""

NANS = 0.01
"""The part of an input of values "nan" that is NaN."""

LEVEL, UNEVEN = 0.1, 1 / 32
"""What an input of values "level" holds, and the part of it that holds something else."""

SMALL_BATCH = (3, 7)
"""N and C of :meth:`Workload.small`: 21 planes, which is no multiple of any vector's lanes."""


@dataclass(frozen=True)
class Workload:
    """A pooling of arrays of one shape.

    Parameters
    ----------
    name
        What it is called, without its shape.
    network
        Where it comes from.
    shape
        (N, C, *spatial), whatever the layout.
    kernel_size, stride, padding, dilation, ceil_mode, count_include_pad
        As for :class:`pooling.MaxPool` and :class:`pooling.AvgPool`.
    values
        What :meth:`input` gives.
    preset
        The smallest preset that measures it.
    both_layouts
        Whether the table holds it in channels_last too.

    Examples
    --------
    >>> workload = Workload("pool1", "a network", (2, 3, 8, 8), kernel_size=2)
    >>> workload.id
    'pool1-2x3x8x8-max-k2s2'
    >>> workload.operator("strided_slices")(workload.input()).shape
    (2, 3, 4, 4)
    """

    name: str
    network: str
    shape: tuple[int, ...]
    kernel_size: IntOrTuple
    stride: IntOrTuple | None = None
    padding: Padding = 0
    dilation: IntOrTuple = 1
    ceil_mode: bool = False
    op: Op = "max"
    count_include_pad: bool = True
    data_format: DataFormat = "channels_first"
    dtype: str = "float32"
    values: Values = "relu"
    preset: Preset = "standard"
    both_layouts: bool = False

    @cached_property
    def id(self) -> str:
        """Its name, shape and window in one word, the same for equal problems."""
        spell = [f"k{_short(self.kernel_size)}", f"s{_short(self.stride or self.kernel_size)}"]
        spell += [f"p{_short(self.padding)}"] * (self.padding != 0)
        spell += [f"d{_short(self.dilation)}"] * (self.dilation != 1)
        spell += ["ceil"] * self.ceil_mode
        words = [self.name, "x".join(map(str, self.shape)), self.op, "".join(spell)]
        words += ["nopad"] * (not self.count_include_pad)
        words += ["nhwc"] * (self.data_format == "channels_last")
        words += [self.dtype] * (self.dtype != "float32")
        words += [self.values] * (self.values != "relu")
        return "-".join(words)

    @property
    def label(self) -> str:
        """For people: what a plot writes beside its marks."""
        window = f"{_short(self.kernel_size)}/{_short(self.stride or self.kernel_size)}"
        window += f"/{_short(self.padding)}" if self.padding else ""
        words = [self.op, window] + ["ceil"] * self.ceil_mode + ["NHWC"] * (self.data_format == "channels_last")
        words += [self.dtype] * (self.dtype != "float32")
        words += [f"({self.values})"] * (self.values != "relu")
        return f"{self.network}  {'×'.join(map(str, self.shape))}  {' '.join(words)}"

    @property
    def array_shape(self) -> tuple[int, ...]:
        """Shape of the input in this layout."""
        n, channels, *spatial = self.shape
        return (n, *spatial, channels) if self.data_format == "channels_last" else self.shape

    @cached_property
    def window(self) -> Window:
        return Window.over(self.shape[2:], self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    @property
    def cells(self) -> int:
        """Elements of the input."""
        return math.prod(self.shape)

    @property
    def outputs(self) -> int:
        """Elements of the output."""
        return math.prod((*self.shape[:2], *self.window.output_size))

    @property
    def nbytes(self) -> int:
        """Bytes of the input."""
        return self.cells * np.dtype(self.dtype).itemsize

    def bytes_moved(self, direction: Direction) -> int:
        """Bytes of the arrays a pass reads and writes, each counted once, with one byte of switch per output of a max.

        What a pass that stays within the cache has to move at least; most windows allow no less.
        """
        values = (self.cells + self.outputs) * np.dtype(self.dtype).itemsize
        switches = self.outputs if self.op == "max" else 0
        return {
            "forward": values,
            "forward_train": values + switches,
            "backward": values + switches,
            "step": 2 * (values + switches),
        }[direction]

    def operator(self, backend: str = "auto", ties: Ties = "first") -> pooling.MaxPool | pooling.AvgPool:
        """The pooling operator that computes it."""
        window = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        if self.op == "max":
            return pooling.MaxPool(*window, ties=ties, data_format=self.data_format, backend=backend)
        return pooling.AvgPool(
            *window, count_include_pad=self.count_include_pad, data_format=self.data_format, backend=backend
        )

    def layer(self, direction: Literal["training", "inference"] = "training", ties: Ties = "first") -> pooling.Layer:
        """It as the tuner takes it."""
        return pooling.Layer(self.array_shape, self.dtype, self.operator(ties=ties), direction)

    def layers(self) -> list[pooling.Layer]:
        """The same for both directions."""
        return [self.layer("training"), self.layer("inference")]

    def input(self, values: Values | None = None, seed: int = 0) -> Array:
        """What a layer before might give: normal values, or those after ReLU, where half are 0 and whole windows tie.

        "nan" is "relu" with some cells that are NaN. "level" is 0.1 but for one cell in 32: the rounding errors of a long sum
        then have one sign, where those of scattered values cancel. By default the workload's own values.
        """
        values = values or self.values
        rng = np.random.default_rng(seed)
        x = rng.standard_normal(self.array_shape, np.float32)
        if values == "level":
            return np.where(rng.random(x.shape, np.float32) < UNEVEN, LEVEL * np.abs(x), LEVEL).astype(self.dtype)
        if values != "normal":
            np.maximum(x, 0, out=x)
        if values == "nan":
            x[rng.random(x.shape, np.float32) < NANS] = np.nan
        return x.astype(self.dtype, copy=False)

    def gradient(self, seed: int = 1) -> Array:
        """A gradient with respect to the output; of a mean, 0.1 but for one in 32, as in an input of values "level"."""
        n, channels, *_ = self.shape
        spatial = self.window.output_size
        shape = (n, *spatial, channels) if self.data_format == "channels_last" else (n, channels, *spatial)
        rng = np.random.default_rng(seed)
        dy = rng.standard_normal(shape, np.float32)
        if self.op == "avg":
            dy = np.where(rng.random(shape, np.float32) < UNEVEN, LEVEL * dy, LEVEL)
        return dy.astype(self.dtype, copy=False)

    def small(self) -> Workload:
        """The same windows on few and small planes, cut by whole strides so that they end at the edge in the same way."""
        spatial = []
        for axis in self.window.affine:
            wanted = max(axis.span + axis.stride - axis.before - axis.after, 9)
            spatial.append(axis.size - max(0, axis.size - wanted) // axis.stride * axis.stride)
        n, channels = (min(a, b) for a, b in zip(self.shape[:2], SMALL_BATCH, strict=True))
        return replace(self, shape=(n, channels, *spatial))

    def part(self, divisor: int) -> Workload:
        """The same windows on so many times fewer planes, 21 at least: of the items first, then of the channels."""
        n, channels, *spatial = self.shape
        planes = max(n * channels // divisor, math.prod(SMALL_BATCH))
        fewer = max(min(n, planes // channels), 1)
        return replace(self, shape=(fewer, min(channels, max(planes // fewer, 1)), *spatial))


def _short(value: IntOrTuple) -> str:
    """An int, or a tuple's entries, without noise."""
    if isinstance(value, int):
        return str(value)
    return str(value[0]) if len(set(value)) == 1 else "x".join(map(str, value))


TABLE = (
    # The networks people train on MNIST; conv1 and conv2 are the two poolings of this project's `lenet`.
    Workload("mnist_conv1", "MNIST LeNet", (64, 20, 24, 24), 2, preset="quick", both_layouts=True),
    Workload("mnist_conv2", "MNIST LeNet", (64, 50, 8, 8), 2, preset="quick", both_layouts=True),
    Workload("mnist_conv1_avg", "MNIST LeNet", (64, 20, 24, 24), 2, op="avg", preset="quick"),
    Workload("mnist_conv2_avg", "MNIST LeNet", (64, 50, 8, 8), 2, op="avg"),
    Workload("nielsen_conv1", "MNIST Nielsen", (10, 20, 24, 24), 2),
    Workload("nielsen_conv2", "MNIST Nielsen", (10, 40, 8, 8), 2),
    Workload("keras_conv1", "MNIST Keras", (128, 32, 26, 26), 2),
    Workload("keras_conv2", "MNIST Keras", (128, 64, 11, 11), 2),
    # Image networks. VGG-16 as trained on 224-pixel images, but for one on 112.
    Workload("vgg16_block5", "VGG-16", (32, 512, 14, 14), 2, preset="quick", both_layouts=True),
    Workload("vgg16_block3", "VGG-16", (16, 256, 56, 56), 2),
    Workload("vgg16_block1", "VGG-16", (8, 64, 224, 224), 2),
    Workload("vgg16_on112", "VGG-16, 112 px", (16, 64, 112, 112), 2, both_layouts=True),
    Workload("alexnet_pool1", "AlexNet", (32, 96, 55, 55), 3, 2, both_layouts=True),
    Workload("alexnet_pool2", "AlexNet", (32, 256, 27, 27), 3, 2),
    Workload("alexnet_pool5", "AlexNet", (64, 256, 13, 13), 3, 2, preset="quick"),
    Workload("resnet50_stem", "ResNet-50", (16, 64, 112, 112), 3, 2, 1, both_layouts=True),
    Workload("resnet50_tail", "ResNet-50", (64, 2048, 7, 7), 7, 1, op="avg", both_layouts=True),
    Workload("resnetv2_shortcut", "ResNetV2", (16, 256, 56, 56), 1, 2),
    Workload("googlenet_pool1", "GoogLeNet", (16, 64, 114, 114), 3, 2),
    Workload("googlenet_pool3", "GoogLeNet", (32, 480, 28, 28), 3, 2),
    Workload("googlenet_pool4", "GoogLeNet", (64, 832, 14, 14), 3, 2),
    Workload("googlenet_branch3a", "GoogLeNet", (32, 192, 28, 28), 3, 1, 1, both_layouts=True),
    Workload("googlenet_branch4", "GoogLeNet", (32, 512, 14, 14), 3, 1, 1),
    Workload("inceptionv3_pool1", "Inception v3", (8, 64, 147, 147), 3, 2),
    Workload("inceptionv3_pool2", "Inception v3", (16, 192, 71, 71), 3, 2),
    Workload("inceptionv3_reduction", "Inception v3", (32, 768, 17, 17), 3, 2),
    Workload("inceptionv3_branch", "Inception v3", (32, 768, 17, 17), 3, 1, 1, op="avg"),
    Workload("densenet121_transition1", "DenseNet-121", (16, 128, 56, 56), 2, op="avg"),
    Workload("squeezenet_pool1", "SqueezeNet", (16, 64, 111, 111), 3, 2, ceil_mode=True),
    Workload("yolo_sppf", "YOLO", (16, 256, 20, 20), 5, 1, 2, both_layouts=True),
    Workload("yolo_spp", "YOLO", (2, 256, 20, 20), 13, 1, 6),
    Workload("unet_down1", "U-Net", (1, 64, 572, 572), 2),
    Workload("unet_down4", "U-Net", (4, 512, 64, 64), 2),
    # One and three spatial dimensions, a batch of one, and double precision.
    Workload("unet3d_down1", "3-D U-Net", (1, 64, 64, 64, 64), 2),
    Workload("i3d_pool2a", "I3D", (2, 64, 16, 112, 112), (1, 3, 3), (2, 2, 2), (0, 1, 1)),
    Workload("c3d_pool5", "C3D", (32, 512, 2, 7, 7), 2, 2, (0, 1, 1)),
    Workload("audio_steps", "audio", (32, 256, 496), 4),
    Workload(
        "resnet50_stem", "ResNet-50, batch 1", (1, 64, 112, 112), 3, 2, 1, data_format="channels_last", preset="quick"
    ),
    Workload("resnet50_stem", "ResNet-50", (8, 64, 112, 112), 3, 2, 1, dtype="float64", preset="full"),
)


def _in_layouts(row: Workload) -> tuple[Workload, ...]:
    if not row.both_layouts:
        return (row,)
    return row, replace(row, data_format="channels_last", preset="standard")


WORKLOADS: tuple[Workload, ...] = tuple(workload for row in TABLE for workload in _in_layouts(row))


def of_preset(preset: Preset) -> tuple[Workload, ...]:
    """The workloads that `preset` measures, in the table's order."""
    upto = PRESETS.index(preset)
    return tuple(w for w in WORKLOADS if PRESETS.index(w.preset) <= upto)


def ladder(preset: Preset) -> tuple[Workload, ...]:
    """2x2 windows on ever more planes of 16 x 16 (1 KB each), from 1 KB to 200 MB: only the memory's size changes."""
    factor = 4 if preset == "quick" else 2
    planes = [1]
    while planes[-1] * factor < LARGEST:
        planes.append(planes[-1] * factor)
    planes.append(LARGEST)
    return tuple(
        Workload(f"{p}KB", "time against size", (-(-p // 64), min(p, 64), 16, 16), 2, preset=preset) for p in planes
    )
