"""What a table of workloads can't show: bandwidth, threads, kernel size, and the price of what users may ask for.

Each study varies one thing and keeps the rest. Its rows are timings like all others, proven first; ratios are made when the
page is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from statistics import median

from bench.experiments import roofline
from bench.protocol.contenders import Arrays, Contender
from bench.protocol.measure import Patience, measure, measure_together, pinned, proven, take_turns, timing
from bench.schema.environment import Machine
from bench.schema.results import BandwidthKind, LeftOut, Row
from bench.schema.task import Progress, Task
from bench.schema.workloads import Direction, Workload
from pooling.operators.base import DataFormat

SUBJECT = "simd"
"""The backend that kernel sizes and prices are about."""

LAYOUTS: tuple[DataFormat, ...] = ("channels_first", "channels_last")

PASSES: tuple[Direction, ...] = ("forward_train", "backward")
"""The two passes of a training step, apart."""

SCALING = ("simd", "numba_loops", "strided_slices")
SCALED = ("mnist_conv1", "vgg16_block5", "resnet50_stem")
"""Backends and channels_first workloads whose time is taken at each number of threads: small, of short rows, large."""

EVERY_COUNT = 8
"""Up to this number of threads each is tried, above it doublings."""

KERNELS = (2, 3, 5, 7, 9, 13, 21, 31)
KERNEL_RIVALS = ("pytorch", "pytorch_channels_last", "onednn")
"""The peers that train fastest; XLA's gradient takes seconds at large kernels."""

KERNEL_OUTPUT = (4, 64, 32, 32)
"""What every kernel size puts out: little enough to stay in a cache, so that the kernel's work shows, and not memory's."""

BEYOND = 2
"""Times the last cache that arrays hold at least where memory itself is what is measured."""

BEYOND_WINDOWS = ((2, 2, 0), (3, 2, 1))
"""Kernel size, stride and padding there."""

BEYOND_ROOM = 8
"""Times such an array that the machine's memory must hold: its gradient, results, and those they are compared with."""

ROOF_TASK = "roofline"


def roofline_task(sizes: Sequence[int], threads: int) -> Task:
    """This machine's bandwidth, on the run's threads."""

    def work(progress: Progress) -> list[Row]:
        return [*roofline.measure(threads=threads, sizes=sizes, progress=progress)]

    return Task(ROOF_TASK, 2 + 0.25 * len(sizes), work)


def beyond(last_cache: int) -> tuple[Workload, ...]:
    """Small windows over arrays that no cache holds, by layout.

    Examples
    --------
    >>> [workload.nbytes > 2 * 2**20 for workload in beyond(2**20)]
    [True, True, True, True]
    """
    image = Workload("beyond", "memory", (1, 64, 112, 112), 2)
    items = BEYOND * last_cache // image.nbytes + 1
    return tuple(
        replace(image, shape=(items, *image.shape[1:]), kernel_size=k, stride=s, padding=p, data_format=data_format)
        for k, s, p in BEYOND_WINDOWS
        for data_format in LAYOUTS
    )


def beyond_tasks(contenders: Sequence[Contender], machine: Machine, patience: Patience, threads: int) -> Iterator[Task]:
    """Both passes over arrays that no cache holds; nothing where caches are not known, or memory would not hold them."""
    subject = next((contender for contender in contenders if contender.name == SUBJECT), None)
    if subject is None or not machine.caches:
        return
    for workload in beyond(max(machine.caches.values())):
        if BEYOND_ROOM * workload.nbytes <= machine.memory:
            work = partial(beside_memory, workload, subject, patience, threads)
            yield Task(f"beyond {workload.id}", 1.6 * patience.budget_s + 10, work, (workload,))


def beside_memory(
    workload: Workload, contender: Contender, patience: Patience, threads: int, progress: Progress
) -> list[Row]:
    """Both passes, in turns with what touches as many bytes: memory is shared with others, and differs from minute to minute."""
    with pinned(threads):
        arrays = Arrays.of(workload)
        found = proven(workload, contender, patience, arrays, "beyond")
        if isinstance(found, LeftOut):
            return [found]
        proof, calls = found
        memory = roofline.of_size(workload.bytes_moved(PASSES[0]))
        ways = [(kind, name, *way) for kind, of in roofline.contests(memory).items() for name, way in of.items()]
        both = [*(calls[d] for d in PASSES), *(roofline.single(n, work) for _, _, n, work in ways)]
        samples = take_turns(both, patience, 0, progress)
    rows: list[Row] = [
        timing("beyond", workload, contender, direction, threads, seconds, n, proof)
        for direction, (seconds, n) in zip(PASSES, samples, strict=False)
    ]
    medians: dict[BandwidthKind, dict[str, float]] = {}
    for (kind, name, _, _), (seconds, _) in zip(ways, samples[len(PASSES) :], strict=True):
        medians.setdefault(kind, {})[name] = median(seconds)
    return rows + [roofline.row(kind, memory, threads, seconds, workload) for kind, seconds in medians.items()]


def thread_counts(most: int) -> tuple[int, ...]:
    """1, 2, 3 ... `most`; of large numbers doublings, and the largest.

    Examples
    --------
    >>> thread_counts(4), thread_counts(48)
    ((1, 2, 3, 4), (1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 48))
    """
    counts = list(range(1, min(most, EVERY_COUNT) + 1))
    while counts[-1] < most:
        counts.append(min(2 * counts[-1], most))
    return tuple(counts)


def thread_tasks(
    workloads: Sequence[Workload], contenders: Sequence[Contender], patience: Patience, most: int
) -> Iterator[Task]:
    """Training steps on 1 to `most` threads; nothing where there is but one."""
    scaling = [contender for contender in contenders if contender.name in SCALING]
    if most < 2 or not scaling:
        return
    counts = thread_counts(most)

    def task(workload: Workload) -> Task:
        def work(progress: Progress) -> list[Row]:
            rows: list[Row] = []
            for i, threads in enumerate(counts):
                rows += measure(workload, scaling, patience, threads=threads, stage="threads", directions=("step",))
                progress((i + 1) / len(counts))
            return rows

        return Task(f"threads {workload.id}", len(counts) * (1.6 * patience.budget_s + 0.5), work, (workload,))

    for workload in workloads:
        if workload.name in SCALED and workload.data_format == "channels_first":
            yield task(workload)


def of_kernel(size: int, data_format: DataFormat) -> Workload:
    """Windows of this size, a step of 1 apart, padded on both sides alike; an even size needs a cell more."""
    n, channels, *spatial = KERNEL_OUTPUT
    shape = (n, channels, *(cells + (size - 1) % 2 for cells in spatial))
    return Workload(
        f"kernel{size}", "one layer", shape, size, 1, (size - 1) // 2, data_format=data_format, preset="quick"
    )


def kernel_tasks(
    sizes: Sequence[int], contenders: Sequence[Contender], patience: Patience, threads: int
) -> Iterator[Task]:
    """Ever larger kernels that put out the same, by layout: ours take turns, rivals have one size after the other."""
    rivals = [contender for contender in contenders if contender.name in KERNEL_RIVALS]
    subject = [contender for contender in contenders if contender.name == SUBJECT]
    if not subject:
        return
    together = replace(patience, budget_s=patience.budget_s * len(sizes))

    def task(data_format: DataFormat) -> Task:
        workloads = tuple(of_kernel(size, data_format) for size in sizes)

        def work(progress: Progress) -> list[Row]:
            rows: list[Row] = []
            for i, workload in enumerate(workloads):
                able = [rival for rival in rivals if rival.why_not(workload) is None]
                if able:
                    rows += measure(workload, able, patience, threads=threads, stage="kernels", directions=("step",))
                progress(0.5 * (i + 1) / len(workloads))
            return rows + [
                *measure_together(
                    workloads,
                    subject,
                    together,
                    threads=threads,
                    stage="kernels",
                    directions=("forward_train", "step"),
                    progress=lambda done: progress(0.5 + 0.5 * done),
                )
            ]

        seconds = len(sizes) * (1.6 * patience.budget_s * (1 + bool(rivals)) + 0.5 * len(rivals))
        return Task(f"kernels {data_format}", seconds, work, workloads)

    for data_format in LAYOUTS:
        yield task(data_format)


def priced(data_format: DataFormat) -> tuple[Workload, ...]:
    """Pairs that differ in one thing: with NaN and without, padded and cut to the same number of outputs."""
    two = Workload("price", "one layer", (4, 64, 56, 56), 2, data_format=data_format, preset="quick")
    three = replace(two, kernel_size=3, stride=2, padding=1)
    unpadded = replace(three, shape=(4, 64, 57, 57), padding=0)
    return two, replace(two, values="nan"), three, replace(three, values="nan"), unpadded


def price_tasks(contenders: Sequence[Contender], patience: Patience, threads: int) -> Iterator[Task]:
    """The workloads whose ratios are prices, all taking turns with each other."""
    subject = [contender for contender in contenders if contender.name == SUBJECT]

    def task(data_format: DataFormat) -> Task:
        workloads = priced(data_format)

        def work(progress: Progress) -> list[Row]:
            return [*measure_together(workloads, subject, patience, threads=threads, stage="prices", progress=progress)]

        return Task(f"prices {data_format}", 1.6 * patience.budget_s + 1.5, work, workloads)

    if subject:
        for data_format in LAYOUTS:
            yield task(data_format)
