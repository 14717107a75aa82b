"""The same training in PyTorch, in its best fair form: same weights, same batches, same steps, same threads.

The network is the usual ``nn.Sequential``, with max pooling before ReLU as ours, in NCHW or channels_last; gradients are set
to None between steps, and the images lie in the memory format beforehand. Only PyTorch is imported here, when a trainer is made.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.training.convolution import Convolution
from bench.training.data import Dataset
from bench.training.layers import FullyConnected, Pool, ReLU
from bench.training.networks import Network
from bench.training.stopwatch import Stopwatch
from bench.training.train import EVALUATED, Settings, Trainer
from pooling import AvgPool

Array = NDArray[Any]
Form = Literal["pytorch", "pytorch_channels_last", "pytorch_compiled"]
FORMS: tuple[Form, ...] = ("pytorch", "pytorch_channels_last", "pytorch_compiled")
"""NCHW; its channels_last memory format; the latter compiled by inductor, for information."""


def twin(network: Network, shape: tuple[int, int, int]) -> Any:
    """The network as ``nn.Sequential``, with a copy of its weights.

    Parameters
    ----------
    shape
        Height, width and channels of an image: ours flatten them in this order, PyTorch with the channels first.
    """
    import torch
    from torch import nn

    modules: list[Any] = []
    height, width, channels = shape
    flat = False
    for layer in network.layers:
        if isinstance(layer, Convolution):
            size, filters = layer.size, len(layer.b)
            module: Any = nn.Conv2d(channels, filters, size)
            _fill(module, layer.w.reshape(size, size, channels, filters).transpose(3, 2, 0, 1), layer.b)
            height, width, channels = height - size + 1, width - size + 1, filters
        elif isinstance(layer, Pool):
            window = layer.operator.problem((1, height, width, channels)).window
            kind = nn.AvgPool2d if isinstance(layer.operator, AvgPool) else nn.MaxPool2d
            module = kind(window.kernel_size, window.stride)
            height, width = window.output_size
        elif isinstance(layer, ReLU):
            module = nn.ReLU()
        elif isinstance(layer, FullyConnected):
            w = layer.w
            if not flat:
                modules.append(nn.Flatten())
                w = w.reshape(-1, height, width, channels).transpose(0, 3, 1, 2).reshape(w.shape)
                flat = True
            module = nn.Linear(*w.shape[::-1])
            _fill(module, w, layer.b)
        else:
            raise TypeError(f"{layer.name}: PyTorch has no twin of {type(layer).__name__} here")
        modules.append(module)
    assert all(parameter.dtype == torch.float32 for module in modules for parameter in module.parameters())
    return nn.Sequential(*modules)


def _fill(module: Any, w: Array, b: Array) -> None:
    import torch

    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(np.ascontiguousarray(w)))
        module.bias.copy_(torch.from_numpy(b.copy()))


class TorchTrainer:
    """As :class:`bench.training.train.Trainer`: steps by indices into the data set, in one of :data:`FORMS`."""

    def __init__(self, settings: Settings, dataset: Dataset, form: Form) -> None:
        import torch

        torch.set_num_threads(settings.threads)
        self.settings, self.dataset = settings, dataset
        height, width, channels = dataset.images.shape[1:]
        model = twin(Trainer.new_network(settings, dataset), (height, width, channels))
        self.names = [f"{i} {type(module).__name__}" for i, module in enumerate(model)]
        self.images = self._tensor(dataset.images[: settings.images], form)
        self.labels = torch.from_numpy(dataset.labels[: settings.images])
        self._form = form
        if form != "pytorch":
            model = model.to(memory_format=torch.channels_last)
        self.modules = list(model)
        self.model = torch.compile(model) if form == "pytorch_compiled" else model
        self.optimizer = torch.optim.SGD(model.parameters(), settings.learning_rate, settings.momentum)
        self.loss = torch.nn.CrossEntropyLoss()
        self.losses: list[float] = []
        # Warmed up without a step: the first real one is from the same weights as everybody's.
        indices = torch.arange(min(settings.batch_size, len(self.labels)))
        self.loss(self.model(self.images[indices]), self.labels[indices]).backward()

    @staticmethod
    def _tensor(images: Array, form: Form) -> Any:
        import torch

        if form != "pytorch":
            return torch.from_numpy(images).permute(0, 3, 1, 2)  # channels_last as it is
        return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))

    def step(self, indices: Array) -> float:
        """One step of gradient descent; the loss before it."""
        import torch

        chosen = torch.from_numpy(indices)
        x, labels = self.images[chosen], self.labels[chosen]
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.model(x), labels)
        loss.backward()
        self.optimizer.step()
        self.losses.append(float(loss.detach()))
        return self.losses[-1]

    def profiled_step(self, indices: Array, watch: Stopwatch) -> float:
        """The same, layer by layer with a clock between: the graph is cut at each."""
        import torch

        watch.start()
        chosen = torch.from_numpy(indices)
        x, labels = self.images[chosen], self.labels[chosen]
        watch.lap("batch", "forward")
        self.optimizer.zero_grad(set_to_none=True)
        cuts = []
        for i, (name, module) in enumerate(zip(self.names, self.modules, strict=True)):
            given = x.detach().requires_grad_(i > 0)
            x = module(given)
            cuts.append((name, given, x))
            watch.lap(name, "forward")
        given = x.detach().requires_grad_()
        loss = self.loss(given, labels)
        watch.lap("softmax", "forward")
        loss.backward()
        watch.lap("softmax", "backward")
        gradient = given.grad
        for name, given, y in reversed(cuts):
            torch.autograd.backward(y, gradient)
            gradient = given.grad
            watch.lap(name, "backward")
        self.optimizer.step()
        watch.lap("sgd", "backward")
        return float(loss.detach())

    def accuracy(self) -> float:
        """Part of the test images whose label has the highest score."""
        import torch

        right = 0
        with torch.no_grad():
            for i in range(0, len(self.dataset.test_images), EVALUATED):
                scores = self.model(self._tensor(self.dataset.test_images[i : i + EVALUATED], self._form))
                labels = self.dataset.test_labels[i : i + EVALUATED]
                right += int((scores.argmax(1).numpy() == labels).sum())
        return right / len(self.dataset.test_images)


def profile(trainer: TorchTrainer, batches: list[Array]) -> Stopwatch:
    """Seconds by layer and direction of steps on these batches."""
    watch = Stopwatch()
    for indices in batches:
        trainer.profiled_step(indices, watch)
    return watch
