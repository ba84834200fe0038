"""How fast it goes on the machine at hand: measurements that end in advice."""

from djepa.bench.data import DataBench, bench_data

__all__ = ["DataBench", "bench_data"]
