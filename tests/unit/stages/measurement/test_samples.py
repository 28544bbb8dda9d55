import numpy as np

from bonsai.profiles.loader import load_profile
from bonsai.stages.measurement.samples import gating_clock, percentile_error, summarise


def test_percentiles_are_those_of_all_samples_and_p99_needs_a_thousand() -> None:
    values = np.stack([np.arange(1, 1001), np.arange(1, 1001) * 2]) * 1_000_000
    cpu, wall = summarise(values, "thread_cpu"), summarise(values, "wall")
    assert (cpu.p50, cpu.n) == (500.5, 1000)
    assert wall.p50 == 1001
    assert cpu.wall_p50 == 1001
    assert not cpu.stable
    assert summarise(values[:, :999], "thread_cpu").p99 is None


def test_steady_samples_are_stable_and_their_median_certain() -> None:
    values = np.full((2, 1000), 1_000_000)
    assert summarise(values, "wall").stable
    assert percentile_error(values, "wall") == 0
    assert percentile_error(values, "wall", 95) == 0


def test_the_median_of_one_thread_of_a_cpu_is_judged_by_its_own_clock_and_all_else_by_the_wall() -> None:
    cpu, gpu = load_profile("local-cpu").target, load_profile("rtx-4090").target
    assert gating_clock(cpu, 50) == "thread_cpu"
    assert gating_clock(cpu, 90) == gating_clock(cpu, 95) == "wall"
    assert gating_clock(cpu.model_copy(update={"threads": 2}), 50) == "wall"
    assert gating_clock(gpu, 50) == "wall"


def test_a_tail_is_wall_time_since_the_threads_clock_leaves_out_what_it_waits_for() -> None:
    cpu, wall = np.full(1000, 1_000_000), np.full(1000, 1_000_000)
    wall[::8] = 20_000_000  # every eighth run waits for its turn on the core, which costs the thread nothing
    found = summarise(np.stack([cpu, wall]), "thread_cpu")
    assert (found.p50, found.at(50)) == (1, 1)
    assert (found.p90, found.at(90), found.p95, found.p99) == (20, 20, 20, 20)


def test_the_error_of_a_tail_is_larger_than_that_of_the_median() -> None:
    runs = np.random.default_rng(0).lognormal(13, 0.1, (2, 2000)).astype(np.int64)
    assert percentile_error(runs, "wall", 95) > 1.3 * percentile_error(runs, "wall", 50)
