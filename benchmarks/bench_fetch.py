"""Fetch speed against a server on this machine: the downloader beside a bare aiohttp loop, the floor.

python benchmarks/bench_fetch.py [--images 4000] [--bytes 50000] [--connections 64] [--latency-ms 0] [--hosts 16]

The bare loop does what nobody may do on the web: no caps per host, no checks, no limits. Both run in the same
process against the same server process, in turn, and the median of the rounds is printed.
"""

import argparse
import asyncio
import multiprocessing
import statistics
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stages.download.answers import Answer, Limits, Network
from stages.download.client import fetch_all


class _Origin(asyncio.Protocol):
    """HTTP/1.1 with keep-alive and nothing more; the last path segment does not matter."""

    reply = b""
    latency_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            _, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
            if self.latency_s:
                asyncio.get_running_loop().call_later(self.latency_s, self.transport.write, self.reply)
            else:
                self.transport.write(self.reply)


def serve(pipe: Connection, size: int, latency_s: float) -> None:
    body = b"\xff\xd8\xff\xe0" + bytes(size - 4)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {size}\r\n\r\n".encode()
    _Origin.reply, _Origin.latency_s = head + body, latency_s

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(_Origin, "127.0.0.1", 0, backlog=1024)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)

    asyncio.run(main())


async def bare(urls: list[str], connections: int) -> int:
    """The floor: read every body whole, look at nothing."""
    todo = iter(urls)
    received = 0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False) as session:

        async def work() -> None:
            nonlocal received
            for url in todo:
                async with session.get(url) as response:
                    received += len(await response.read())

        await asyncio.gather(*(work() for _ in range(connections)))
    return received


async def guarded(urls: list[str], port: int, connections: int, per_host: int) -> int:
    received = 0

    def deliver(answer: Answer) -> None:
        nonlocal received
        assert answer.reason is None, answer
        received += len(answer.body)

    limits = Limits(26_214_400, frozenset({"jpeg"}), 5, allow_private=True)
    resolve = {".bench.test": f"127.0.0.1:{port}"}
    await fetch_all(urls, limits, Network(connections, per_host, 5, 10, 30, 1, 1, resolve, "bench"), deliver)
    return received


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("images", 4000), ("bytes", 50_000), ("connections", 64), ("hosts", 16), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    args = parser.parse_args()
    pipe, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(theirs, args.bytes, args.latency_ms / 1000))
    server.start()
    port = pipe.recv()
    plain = [f"http://127.0.0.1:{port}/{i}" for i in range(args.images)]
    named = [f"http://h{i % args.hosts}.bench.test/{i}" for i in range(args.images)]
    per_host = -(-args.connections // args.hosts)
    speeds: dict[str, list[float]] = {"bare aiohttp": [], "fetch_all": []}
    cpu: dict[str, list[float]] = {"bare aiohttp": [], "fetch_all": []}
    try:
        for _ in range(args.rounds):
            for name in speeds:
                begun, begun_cpu = time.perf_counter(), time.process_time()
                if name == "fetch_all":
                    received = asyncio.run(guarded(named, port, args.connections, per_host))
                else:
                    received = asyncio.run(bare(plain, args.connections))
                assert received == args.images * args.bytes
                speeds[name].append(args.images / (time.perf_counter() - begun))
                cpu[name].append((time.process_time() - begun_cpu) / args.images * 1e6)
    finally:
        pipe.send(None)
        server.join(10)
    for name, values in speeds.items():
        low, mid, high = min(values), statistics.median(values), max(values)
        print(
            f"{name:13} {low:7.0f} / {mid:7.0f} / {high:7.0f} images/s, {statistics.median(cpu[name]):5.0f} us CPU each"
        )
    ratio = statistics.median(speeds["fetch_all"]) / statistics.median(speeds["bare aiohttp"])
    print(f"fetch_all / bare: {ratio:.2f}")


if __name__ == "__main__":
    main()
