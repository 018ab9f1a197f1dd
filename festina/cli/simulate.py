"""`festina simulate`: policies side by side on hours of traffic, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from festina.cli.options import Json
from festina.cli.simulate_children import INTERRUPTED, Children
from festina.cli.simulate_options import gpu_of, names, options, window_s, workloads
from festina.cli.simulate_run import Progress, ProgressLines, Stop, run_here
from festina.errors import BadRequestError
from festina.report.perfetto import chrome_trace
from festina.report.simulation_html import simulation_html
from festina.report.simulation_table import SimulationProgress, print_reports
from festina.simulator.experiment import Experiment, Run, report_of
from festina.simulator.oracle import OracleBound, lower_bound
from festina.simulator.policies import POLICIES, SWITCHES
from festina.simulator.report import SimulationReport, to_json
from festina.simulator.result import PolicyResult
from festina.simulator.run import ClusterSettings, truth_bias
from festina.simulator.workload import Workload
from festina.simulator.workloads import RECIPES, build_workload

FILE_SEED = 101
SEED_MAX = 2**63 - 1
WINDOW_S = (0.0, 60.0)


@dataclass(frozen=True, slots=True)
class TraceFiles:
    """How trace files become workloads; None is the default of `build_workload`.

    Attributes:
        shape: Of models that a file does not name.
        replicas: Deployments of a file that names no models.
        context_tokens: Longest prompt plus output; longer requests are shortened.
    """

    shape: str | None
    replicas: int | None
    context_tokens: int | None

    def words(self) -> list[str]:
        """The command line that says the same."""
        words = [] if self.shape is None else ["--shape", self.shape]
        words += [] if self.replicas is None else ["--replicas", str(self.replicas)]
        limit = self.context_tokens
        return words if limit is None else [*words, "--context-tokens", str(limit)]


@dataclass(frozen=True, slots=True)
class Order:
    """What the command line asked for, checked.

    Attributes:
        workloads: Names or files.
        experiment: What to run on each.
        gpus: How many.
        slo: Set of objectives.
        load: Multiple of the load.
        seed: None takes each workload's own.
        traces: Folder of recorded traces.
        files: How trace files are read.
        settings: `NAME=VALUE` of uncertain constants, as given.
        window_s: Of the recorded spans of the first policy, or None.
        oracle: Whether to compute the lower bound.
        jobs: Processes.
    """

    workloads: tuple[str, ...]
    experiment: Experiment
    gpus: int
    slo: str
    load: float
    seed: int | None
    traces: Path | None
    files: TraceFiles
    settings: tuple[str, ...]
    window_s: tuple[float, float] | None
    oracle: bool
    jobs: int

    def seed_of(self, workload: str) -> int:
        """The seed of a workload and of the truth it meets."""
        if self.seed is not None:
            return self.seed
        known = (recipe.seed for name, recipe in RECIPES.items() if workload.startswith(name))
        return next(known, FILE_SEED)

    def build(self, workload: str) -> Workload:
        """Its requests.

        Raises:
            BadRequestError: As `build_workload`.
        """
        return build_workload(
            workload,
            traces=self.traces,
            gpus=self.gpus,
            slo=self.slo,
            load=self.load,
            seed=self.seed_of(workload),
            gpu=self.experiment.gpu,
            shape=self.files.shape,
            replicas=self.files.replicas,
            context_tokens=self.files.context_tokens,
        )

    @property
    def traced(self) -> tuple[Run, tuple[float, float]] | None:
        """The run whose spans are recorded."""
        return None if self.window_s is None else (self.experiment.runs()[0], self.window_s)

    def child(self, workload: str) -> Callable[[Run], list[str]]:
        """What gives the command line of a run in a child process."""

        def arguments(run: Run) -> list[str]:
            words = ["simulate", "--json", "--no-oracle", "--progress-lines"]
            words += ["--workload", workload, "--policies", run.policy]
            words += ["--gpus", str(self.gpus), "--gpu", self.experiment.gpu.kind]
            words += ["--slo", self.slo, "--load", repr(self.load)]
            words += ["--seed", str(self.seed_of(workload))]
            words += ["--traces", str(self.traces)] if self.traces is not None else []
            words += self.files.words()
            for name, value in run.options:
                words += ["--option", f"{run.policy}.{name}={str(value).lower()}"]
            settings = [f"{run.setting[0]}={run.setting[1]!r}"] if run.setting is not None else []
            for setting in (*self.settings, *settings):
                words += ["--setting", setting]
            if self.traced is not None and run == self.traced[0]:
                words += ["--trace-window", f"{self.traced[1][0]!r}:{self.traced[1][1]!r}"]
            return words

        return arguments


def command(
    workload: Annotated[
        str, typer.Option(metavar="NAME|FILE[,…]|all", help="Named workloads or trace files.")
    ] = "steady-poisson",
    gpus: Annotated[int, typer.Option(min=1, help="How many.")] = 8,
    gpu: Annotated[str, typer.Option(help="h100-sxm, h200-sxm or a100-sxm.")] = "h100-sxm",
    policies: Annotated[
        str, typer.Option(metavar="NAME[,…]|all", help="Which to compare.")
    ] = "all",
    slo: Annotated[str, typer.Option(help="Objectives: strict, relaxed or loose.")] = "strict",
    load: Annotated[float, typer.Option(help="Multiplies the rate of requests.")] = 1.0,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, max=SEED_MAX, help="Of requests, bias and noise; each workload has one."
        ),
    ] = None,
    traces: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Recorded traces; else synthetic ones."),
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help="Model of a trace file that names none: llama-8b, …")
    ] = None,
    replicas: Annotated[
        int | None, typer.Option(min=1, help="Deployments of a file without models: one a GPU.")
    ] = None,
    context_tokens: Annotated[
        int | None, typer.Option(min=2, help="Shorten requests to this many tokens in all.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for results.json and report.html.")
    ] = None,
    json: Json = False,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Also with each improvement switched off alone.")
    ] = False,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Also over the ranges of uncertain constants.")
    ] = False,
    trace_out: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Chrome trace of a window of the first policy."),
    ] = None,
    trace_window: Annotated[
        str | None, typer.Option(metavar="START:END", help="Which window, seconds.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, each in a process.")] = 1,
    no_oracle: Annotated[
        bool, typer.Option("--no-oracle", help="No lower bound: it can take longer than a run.")
    ] = False,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="POLICY.NAME=VALUE", help="Set a policy's switch; repeatable."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Set an uncertain constant; repeatable."),
    ] = None,
    progress_lines: Annotated[bool, typer.Option("--progress-lines", hidden=True)] = False,
) -> None:
    """Simulate policies on the same requests and compare joules, objectives and latencies.

    Everything is modelled: no GPU is needed. Ctrl-C ends the running policy early, writes what
    there is, and exits with 130.
    """
    chosen = names(policies, "--policies", POLICIES)
    window = None if trace_window is None else window_s(trace_window)
    order = Order(
        workloads=workloads(workload, RECIPES),
        experiment=Experiment(
            policies=chosen,
            gpu=gpu_of(gpu, setting or ()),
            options=options(option or (), chosen),
            ladders=SWITCHES if ablation else {},
            sensitivity=sensitivity,
        ),
        gpus=gpus,
        slo=slo,
        load=load,
        seed=seed,
        traces=traces,
        files=TraceFiles(shape, replicas, context_tokens),
        settings=tuple(setting or ()),
        window_s=window or (WINDOW_S if trace_out is not None else None),
        oracle=not no_oracle,
        jobs=jobs,
    )
    _check_writable(out, trace_out)
    console = Console(stderr=True, highlight=False)
    with Stop() as stop:
        reports = _simulate(order, stop, console, ProgressLines() if progress_lines else None)
    _write(reports, out, trace_out, console)
    if json:
        print(to_json(reports).decode())
    else:
        print_reports(reports)
    if stop.asked:
        console.print("interrupted: this is what was simulated until then", style="bold")
        raise typer.Exit(INTERRUPTED)


def _simulate(
    order: Order, stop: Stop, console: Console, lines: ProgressLines | None
) -> list[SimulationReport]:
    built = [(name, order.build(name)) for name in order.workloads]
    reports = []
    for name, workload in built:
        if stop.asked:
            break
        if lines is None and len(built) > 1:
            console.print(f"{name}, {len(workload):,} requests")
        bars = SimulationProgress(console)
        with bars if lines is None else nullcontext():
            reports.append(_report(order, name, workload, stop, lines or bars))
    return reports


def _report(
    order: Order, name: str, workload: Workload, stop: Stop, progress: Progress
) -> SimulationReport:
    seed, runs = order.seed_of(name), order.experiment.runs()
    cluster = ClusterSettings(gpus=order.gpus, gpu=order.experiment.gpu, seed=seed)
    if order.jobs > 1 and len(runs) > 1:
        found = Children(order.jobs, order.child(name), stop, progress).run(runs)
    else:
        found = run_here(runs, workload, cluster, stop, progress, order.traced)
    return report_of(
        order.experiment,
        workload,
        found,
        gpus=order.gpus,
        slo=order.slo,
        seed=seed,
        load=order.load,
        bound=_bound(order, workload, cluster, found, stop),
    )


def _bound(
    order: Order,
    workload: Workload,
    cluster: ClusterSettings,
    found: Mapping[Run, PolicyResult],
    stop: Stop,
) -> OracleBound | None:
    """The least energy with which the workload can be served as well as festina did."""
    attainment = order.experiment.attainment(found)
    if not order.oracle or stop.asked or attainment is None:
        return None
    stop.urgent = True
    try:
        return lower_bound(workload, cluster, attainment, bias=truth_bias(workload, cluster))
    except KeyboardInterrupt:
        return None  # the simulations are done, and worth keeping
    finally:
        stop.urgent = False


def _check_writable(out: Path | None, trace_out: Path | None) -> None:
    """Makes the folder now, so that nothing is simulated that cannot be written.

    Raises:
        BadRequestError: There is no such folder, and none can be made.
    """
    try:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadRequestError(
            f"cannot make {out}: {error.strerror}", field="--out", expected="a folder"
        ) from error
    if trace_out is not None and not trace_out.parent.is_dir():
        raise BadRequestError(
            f"there is no folder {trace_out.parent}", field="--trace-out", expected="a file"
        )


def _write(
    reports: Sequence[SimulationReport], out: Path | None, trace_out: Path | None, console: Console
) -> None:
    if out is not None and reports:
        (out / "results.json").write_bytes(to_json(reports))
        (out / "report.html").write_text(simulation_html(reports), encoding="utf-8")
        console.print(f"wrote {out / 'results.json'} and {out / 'report.html'}")
    traced = [one for report in reports for one in report.results if one.window is not None]
    if trace_out is not None and traced:
        trace_out.write_bytes(chrome_trace(traced[0]))
        console.print(f"wrote {trace_out}")
