"""What a million clips and ten thousand cameras need: sums of what was measured, list prices and assumptions.

    python -m benchmarks.scale [--clips 1000000] [--hours 10] [--cameras 10000]

Nothing is run. Each number below says where it is from: a table in docs/results.md, a price with its date, or nobody,
and then it is an assumption. docs/scale.md holds the output, and a test that both are the same.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

MEGA, GIGA = 1e6, 1e9
HOURS_A_MONTH = 730


@dataclass(frozen=True)
class Number:
    value: float
    unit: str
    means: str
    source: str
    kind: Literal["measured", "price", "assumed"]


RESULTS = "docs/results.md, "
NUMBERS = {
    "clip_cpu": Number(0.372, "CPU-s", "a clip of 2.5 s, from video to labels", RESULTS + "new labels", "measured"),
    "head_cpu": Number(0.00209, "CPU-s", "the same from stored features", RESULTS + "new labels", "measured"),
    "features": Number(94, "kB", "its features, float32; half of it in float16", RESULTS + "new labels", "measured"),
    "clip": Number(250, "kB", "the clip's file", "209 clips of cameras, 53 MB", "measured"),
    "frame_cpu": Number(1 / 52.4, "CPU-s", "a frame, from pixels to scores", RESULTS + "many streams", "measured"),
    "jpeg_cpu": Number(0.003, "CPU-s", "a JPEG of 640x480, decoded and made smaller", "OpenCV, one core", "measured"),
    "jpeg": Number(44, "kB", "a JPEG of 640x480, quality 80", "12 frames of clips, resized", "measured"),
    "push_cpu": Number(0.010, "CPU-s", "a request through Serve, without its work", "docs/log.md", "measured"),
    "state": Number(20, "kB", "a session in the store, with its last answers", "", "assumed"),
    "rate": Number(8, "frames/s", "of a camera, which is what the default model samples", "", "assumed"),
    "batch": Number(8, "frames", "in a push: a second of video", "", "assumed"),
    "used": Number(0.7, "", "of a node's CPUs and GPU, the rest being starts, stragglers and headroom", "", "assumed"),
    "vcpu": Number(1.0, "", "a vCPU is as fast as a core of the machine that was measured", "", "assumed"),
    "macs": Number(0.407e9, "MAC", "a frame in EfficientNet-Lite0, 224 pixels", "its authors", "assumed"),
    "gpu_flops": Number(31.2e12, "FLOP/s", "an A10G in float32, at best", "its data sheet", "assumed"),
    "gpu_share": Number(0.1, "", "of that, reached by a CNN of small layers; no GPU was measured", "", "assumed"),
    "cpu_node": Number(0.68, "$/h", "c5.4xlarge: 16 vCPU, us-east-1, on demand", "AWS's examples", "price"),
    "gpu_node": Number(1.006, "$/h", "g5.xlarge: 4 vCPU and an A10G, us-east-1, on demand", "June 2026", "price"),
    "bucket": Number(0.023, "$/GB/month", "S3 Standard, us-east-1", "AWS's list", "price"),
    "gbits": Number(10, "Gbit/s", "the network of a c5.4xlarge, at most", "AWS's list", "assumed"),
}
CPU_NODE_VCPUS, GPU_NODE_VCPUS = 16, 4


def n(name: str) -> float:
    return NUMBERS[name].value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--hours", type=float, default=10.0, help="of a night")
    parser.add_argument("--cameras", type=int, default=10_000)
    options = parser.parse_args()
    print("\n".join(report(clips=options.clips, hours=options.hours, cameras=options.cameras)))


def report(*, clips: int, hours: float, cameras: int) -> list[str]:
    return [*_numbers(), "", *_million(clips, hours), "", *_cameras(cameras)]


def _numbers() -> Iterator[str]:
    yield "| | number | what it is | from |"
    yield "|---|---|---|---|"
    for number in NUMBERS.values():
        yield f"| {number.kind} | {number.value:.3g} {number.unit} | {number.means} | {number.source} |"


def _million(clips: int, hours: float) -> Iterator[str]:
    cpu_hours = clips * n("clip_cpu") / 3600 / n("vcpu")
    nodes = math.ceil(cpu_hours / hours / CPU_NODE_VCPUS / n("used"))
    node_hours = cpu_hours / CPU_NODE_VCPUS / n("used")
    store_gb = clips * n("features") * 1e3 / GIGA
    heads_cpu_hours = clips * n("head_cpu") / 3600 / n("vcpu")
    cpu_bound = heads_cpu_hours / CPU_NODE_VCPUS / n("used") * 3600
    net_bound = store_gb * 8 / n("gbits")
    yield f"| {clips:,} clips | from video | new labels, from features |"
    yield "|---|---|---|"
    yield f"| CPU-hours | {cpu_hours:,.0f} | {heads_cpu_hours:.2f} |"
    yield f"| read | {clips * n('clip') * 1e3 / GIGA:,.0f} GB of video | {store_gb:,.0f} GB of features |"
    yield f"| nodes of {CPU_NODE_VCPUS} vCPU for {hours:g} hours | {nodes} | 1, for minutes |"
    bounds = f"{cpu_bound:,.0f} s by its CPUs, {net_bound:,.0f} s by its network"
    yield f"| one node takes | {node_hours:,.1f} h | {bounds} |"
    yield f"| machines cost | ${node_hours * n('cpu_node'):,.2f} | ${cpu_bound / 3600 * n('cpu_node'):.2f} |"
    yield f"| the store | | {store_gb:,.0f} GB, ${store_gb * n('bucket'):.2f} a month; half of both in float16 |"


def _cameras(cameras: int) -> Iterator[str]:
    frames = cameras * n("rate")
    pushes = frames / n("batch")
    cnn, jpeg, push = frames * n("frame_cpu"), frames * n("jpeg_cpu"), pushes * n("push_cpu")
    cpu_nodes = math.ceil((cnn + jpeg + push) / CPU_NODE_VCPUS / n("used"))
    gpus = frames * 2 * n("macs") / n("gpu_flops") / n("gpu_share")
    by_gpu, by_cpu = math.ceil(gpus / n("used")), math.ceil((jpeg + push) / GPU_NODE_VCPUS / n("used"))
    gpu_nodes = max(by_gpu, by_cpu)
    yield f"| {cameras:,} cameras, {frames:,.0f} frames/s, {pushes:,.0f} pushes/s | CPUs alone | with GPUs |"
    yield "|---|---|---|"
    yield f"| CNN and recurrence | {cnn:,.0f} vCPU | {gpus:.0f} A10G |"
    yield f"| JPEGs | {jpeg:,.0f} vCPU | the same |"
    yield f"| pushes through Serve | {push:,.0f} vCPU | the same |"
    bounds = f"{by_cpu} for their vCPUs, {by_gpu} for their GPUs"
    yield f"| nodes | {cpu_nodes} c5.4xlarge | {gpu_nodes} g5.xlarge: {bounds} |"
    monthly = [cpu_nodes * n("cpu_node") * HOURS_A_MONTH, gpu_nodes * n("gpu_node") * HOURS_A_MONTH]
    yield f"| a month | ${monthly[0]:,.0f} | ${monthly[1]:,.0f} |"
    yield "| a camera and month | " + " | ".join(f"${cost / cameras:.2f}" for cost in monthly) + " |"
    gbits = frames * n("jpeg") * 8e3 / GIGA
    yield f"| in through the edge | {gbits:.0f} Gbit/s | {gbits / gpu_nodes:.2f} Gbit/s a node |"
    writes = pushes * n("state") / 1e3
    held_gb = cameras * n("state") / MEGA
    yield f"| the session store | {held_gb:.1f} GB | {pushes:,.0f} writes/s, {writes:,.0f} MB/s |"


if __name__ == "__main__":
    main()
