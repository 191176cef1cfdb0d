"""The demo project in a browser, or with --auto a walk: rounds without a browser."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from annotation.models import User
from rlhf import demo, demo_models, own_models, rounds
from rlhf.dashboard.evidence import RATES
from rlhf.errors import RoundError
from rlhf.models import Job, Round
from rlhf.round_config import preset
from rlhf.walk import Walk, WalkError
from rlhf.walk_report import stage_seconds, write_report
from rlhf.workers import tasks
from rlhf.workers.supervisor import PortBusy, Supervisor, web_server, workers_and_sweeper


class Command(BaseCommand):
    help = "Start the server with a demo project; with --auto, run rounds without a browser."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
        parser.add_argument("--port", type=int, default=8000, help="port to listen on")
        parser.add_argument("--auto", action="store_true", help="rounds with simulated annotators")
        parser.add_argument("--rounds", type=int, default=2, help="how many rounds (with --auto)")
        parser.add_argument("--report", type=Path, help="where to write the report (with --auto)")
        parser.add_argument("--preset", help="sizes and settings (default: the model's)")
        parser.add_argument(
            "--model",
            choices=("tiny", *demo_models.MODELS),
            default="tiny",
            help="tiny: built here in minutes; smollm2: a real model of 135 million parameters, "
            "93 MB to download, under 30 minutes a round on two CPU cores",
        )
        parser.add_argument("--seed", type=int, default=0, help="seed of the rounds (with --auto)")

        parser.add_argument(
            "--continue-in-doubt",
            action="store_true",
            help="go on with reward models that are not better than chance (with --auto)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        real = demo_models.MODELS.get(options["model"])
        options["preset"] = options["preset"] or (real.preset if real else settings.DEMO_PRESET)
        try:
            preset(options["preset"])
        except RoundError as error:
            raise CommandError(str(error)) from None
        most = 2**31 - 1 - max(options["rounds"], 0)  # each round has the next seed, of 31 bits
        if not 0 <= options["seed"] <= most:
            raise CommandError(f"--seed must be between 0 and {most}, got {options['seed']}.")
        call_command("migrate", verbosity=0, interactive=False)
        options["path"] = self.fetch(options["model"]) if real else ""
        if options["auto"]:
            self.walk(options)
        else:
            self.serve(options)

    def fetch(self, name: str) -> str:
        """The path of a real model, which is downloaded if it is not there yet."""
        model = demo_models.MODELS[name]
        self.stdout.write(f"{model.title}: a round takes {model.minutes}.")
        try:
            path = str(demo_models.fetch(name, say=self.stdout.write))
        except demo_models.ModelUnavailable as error:
            raise CommandError(str(error)) from None
        # Its own folder is always one of those that models may be read from.
        settings.MODEL_FOLDERS = [*settings.MODEL_FOLDERS, Path(path).resolve().parent]
        return path

    # --- In a browser -------------------------------------------------------------------------

    def serve(self, options: dict[str, Any]) -> None:
        host, port = options["host"], options["port"]
        try:
            children = [web_server(host, port), *workers_and_sweeper()]
        except PortBusy as error:
            raise CommandError(str(error)) from None
        project = demo.everyday_project() if options["path"] else demo.demo_project()
        logins = demo.demo_accounts(project)
        if options["path"]:
            demo.write_demonstrations(project)
        # None if an account of this name existed before the demo and belongs to a real person.
        grace = User.objects.filter(username="grace", memberships__project=project).first()
        if not options["path"]:
            tasks.wake(rounds.open_base_round(project, grace, preset_name=options["preset"]))
        elif not project.rounds.exists():
            preset_name = options["preset"]
            tasks.wake(
                own_models.inspect_model(project, grace, options["path"], preset_name=preset_name)
            )
        self.welcome(f"http://localhost:{port}", logins)
        settings.STATIC_ROOT.mkdir(parents=True, exist_ok=True)
        Supervisor(
            children,
            settings.BASE_DIR,
            grace=settings.JOB_STOP_GRACE_SECONDS + 10,
            on_restart=self.stderr.write,
        ).run()

    def welcome(self, address: str, logins: dict[str, str]) -> None:
        table = Table(box=None, header_style="dim", padding=(0, 3, 0, 0))
        for column in ("user", "password", "role"):
            table.add_column(column)
        for name, (role, what) in demo.CAST.items():
            if name in logins:
                table.add_row(f"[bold]{name}[/]", logins[name], f"{role}: {what}")
        note = Text(f"Passwords: {settings.DATA_DIR / 'demo-logins.json'}. ", style="dim")
        note.append("The annotators sim-… are simulated. Ctrl-C stops everything.")
        lines = Group(Text.from_markup(f"[bold]{address}[/]\n"), table, Text(), note)
        Console().print(Panel(lines, title="Ground Control", expand=False, padding=(1, 2)))

    # --- Without a browser ----------------------------------------------------------------------

    def walk(self, options: dict[str, Any]) -> None:
        logs = settings.DATA_DIR / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        supervisor = Supervisor(
            workers_and_sweeper(),
            settings.BASE_DIR,
            log=logs / "walk.log",
            grace=settings.JOB_STOP_GRACE_SECONDS + 10,
            on_restart=self.stderr.write,
        )
        console = Console()
        walk = Walk(
            options["rounds"],
            options["preset"],
            options["seed"],
            options["path"],
            continue_in_doubt=options["continue_in_doubt"],
        )
        try:
            supervisor.start()
            with Live(console=console, refresh_per_second=4, transient=True) as live:
                seen: set[tuple[int, str]] = set()

                def show_progress() -> None:
                    supervisor.check()
                    walk_rounds = list(
                        Round.objects.filter(project=walk.project)
                        .order_by("number")
                        .prefetch_related("jobs")
                    )
                    live.update(progress(walk_rounds, walk.judged))
                    if not console.is_terminal:
                        print_ended_stages(console, walk_rounds, seen)

                walk.on_wait, walk.on_line = show_progress, console.print
                report = walk.run()
        except WalkError as error:
            raise CommandError(str(error)) from None
        finally:
            supervisor.stop()
        for entry in report["rounds"]:
            console.print(round_table(entry))
        console.print(
            "Annotators were simulated; gold is the rubric that they follow.", style="dim"
        )
        if options["report"]:
            write_report(report, options["report"])
            console.print(f"Report: {options['report']}")


def progress(rounds: list[Round], judged: tuple[int, int]) -> Table:
    """One line per stage of each round: its state, its progress, its time."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for round in rounds:
        jobs = {job.stage: job for job in sorted(round.jobs.all(), key=lambda job: job.pk)}
        for stage in round.plan:
            started, ended = round.stage_times.get(stage, (None, None))
            style = "green" if ended else "bold" if started else "dim"
            bar, note = _bar(jobs.get(stage), judged if stage == "annotate" and not ended else None)
            seconds = stage_seconds([started, ended]) if ended else None
            table.add_row(
                Text(str(round) if stage == round.plan[0] else "", style="bold"),
                Text(stage, style=style),
                bar if started and not ended else Text(f"{seconds:.0f} s" if seconds else ""),
                Text(note if started and not ended else "", style="dim"),
            )
    return table


def _bar(job: Job | None, judged: tuple[int, int] | None) -> tuple[ProgressBar | Text, str]:
    if judged is not None and judged[1]:
        n, needed = judged
        return ProgressBar(needed, n, width=30), f"{n} of {needed} judgments (simulated)"
    if job is None or not job.progress:
        return Text(""), job.state if job else ""
    p = job.progress
    if not p["total"]:
        return Text(""), p.get("note") or ""
    note = f"{p['done']} of {p['total']} {p['unit']} {p.get('note') or ''}"
    if p.get("eta_seconds") is not None:
        note += f" · {p['eta_seconds']:.0f} s left"
    return ProgressBar(max(p["total"], 1), p["done"], width=30), note


def print_ended_stages(console: Console, rounds: list[Round], seen: set[tuple[int, str]]) -> None:
    """Without a terminal: a line for each stage that has ended."""
    for round in rounds:
        for stage, (started, ended) in round.stage_times.items():
            if ended and (round.number, stage) not in seen:
                seen.add((round.number, stage))
                console.print(f"{round}: {stage} took {stage_seconds([started, ended])} s")


def round_table(entry: dict[str, Any]) -> Table:
    """One round's figures, as both judges see them, at each temperature."""
    name = f"Round {entry['round']}" if entry["round"] else "Base policy"
    parts = [name]
    if entry["n_judgments"]:
        parts.append(f"{entry['n_prompts']} prompts, {entry['n_judgments']} judgments (simulated)")
    if entry["verdict"]:
        parts.append(entry["verdict"])
    table = Table(title=" · ".join(parts), title_justify="left", caption=_caption(entry))
    table.caption_justify = "left"
    table.add_column("figure")
    summaries = []
    for judge in ("gold", "model"):
        for temperature, summary in (entry[judge] or {}).items():
            table.add_column(f"{judge}, T={temperature}", justify="right")
            summaries.append(summary)
    for metric in (
        "helpfulness",
        "safety",
        "win_rate_vs_base",
        "win_rate_vs_previous",
        "violation_rate",
        "over_refusal_rate",
        "entity_accuracy",
        "correct_rate",
        "mean_length",
    ):
        table.add_row(
            metric.replace("_", " "), *(_figure(metric, s.get(metric)) for s in summaries)
        )
    if entry["unfinished"]:
        shares = [entry["unfinished"].get(t) for t in entry["gold"] or {}]
        shares += [entry["unfinished"].get(t) for t in entry["model"] or {}]
        table.add_row("unfinished", *(_figure("violation_rate", share) for share in shares))
    return table


def _figure(metric: str, figure: Any) -> str:
    value = figure.get("score", figure.get("value")) if figure else None
    if value is None:
        return "–"
    form = ".2f" if metric in ("helpfulness", "safety") else ".1f"
    scale, unit = (100, " %") if metric in RATES else (1, "")
    low, high = (format(x * scale, form) for x in figure["ci"])
    return f"{format(value * scale, form)}{unit}\n[{low}, {high}]"


def _caption(entry: dict[str, Any]) -> str:
    lines = [
        "seconds: "
        + ", ".join(f"{s} {t:.0f}" for s, t in entry["seconds"].items() if t is not None)
    ]
    for axis, f in (entry["rm"] or {}).items():
        if f["accuracy"] is not None and f["accuracy_ci"]:
            low, high = f["accuracy_ci"]
            lines.append(
                f"reward model, {axis}: accuracy {f['accuracy']:.1%} [{low:.1%}, {high:.1%}] "
                f"(n={f['n']}), ECE {f['ece']:.3f}"
            )
    if ppo := entry["ppo"]:
        lines.append(
            f"PPO: {ppo['steps']} steps, reward {ppo['reward']:.2f}, KL {ppo['kl']:.2f}, "
            f"{ppo['samples_per_second']:.0f} samples/s"
        )
    return "\n".join(lines)
