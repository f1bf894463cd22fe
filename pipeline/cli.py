"""The command line. Everything heavy is imported inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from pipeline.opening import open_existing as _open_existing
from pipeline.opening import open_if_there as _open_if_there
from pipeline.opening import open_new as _open
from pipeline.opening import open_to_train as _open_to_train

app = typer.Typer(
    name="rs5m-build",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Builds RS5M, remote-sensing images with English captions, from public metadata to training shards.\n\n"
    "A bare `rs5m-build run` builds the miniature RS5M into ./build/mini; running it again resumes or does nothing.\n"
    "The line: sources -> filter -> download -> dedup -> outlier -> caption -> geo -> shard -> train.",
)

RecipeOption = Annotated[str, typer.Option("--recipe", "-r", help="mini, nano, rs5m, or a TOML file of your own.")]
WorkdirOption = Annotated[
    str, typer.Option("--workdir", "-w", help="Folder or fsspec URI of the build. Default: ./build/<recipe>.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override one setting: KEY=VALUE, e.g. dedup.radius=6. Repeatable.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")]


@app.command()
def run(
    recipe: RecipeOption = "mini",
    workdir: WorkdirOption = "",
    stage: Annotated[str, typer.Option(help="Only this stage or step, e.g. filter or dedup.cluster.")] = "",
    until: Annotated[str, typer.Option(help="The line up to and including this stage or step.")] = "",
    source: Annotated[list[str] | None, typer.Option(help="Only files of this source. Repeatable.")] = None,
    executor: Annotated[str, typer.Option(help="ray (default) or local.")] = "",
    workers: Annotated[int | None, typer.Option(min=0, help="Tasks at a time; 0: the CPUs of this process.")] = None,
    set_: SetOption = None,
    slice_: Annotated[
        str, typer.Option("--slice", help="I/N: only every N-th partition of map steps. Default: Slurm's array task.")
    ] = "",
    retry: Annotated[str, typer.Option(help="`failed`: ask once more for urls that failed in earlier runs.")] = "",
    allow_mixed_profile: Annotated[
        bool, typer.Option("--allow-mixed-profile", help="A partition that runs out of memory may halve its batch.")
    ] = False,
    ray_address: Annotated[str, typer.Option(help="Join this Ray cluster (or set RAY_ADDRESS).")] = "",
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would be done, why, and what it takes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --plan: print JSON on stdout, for programs.")] = False,
) -> None:
    """Build the dataset, or part of it; resume what was stopped, redo only what a changed setting touches."""
    from pipeline.commands import run_build
    from pipeline.commands_read import show_plan
    from pipeline.errors import UserError

    overrides = [*(set_ or [])]
    overrides += [f'run.executor="{executor}"'] if executor else []
    overrides += [f"run.workers={workers}"] if workers is not None else []
    overrides += ["run.allow_mixed_profile=true"] if allow_mixed_profile else []
    with _one_line_errors():
        if as_json and not plan:
            raise UserError("--json says how to print a plan: give --plan with it")
        settings, store = _open(recipe, workdir, overrides, brief=plan)
        if plan:
            code = show_plan(settings, store, stage, until, source or [], as_json=as_json)
        else:
            code = run_build(settings, store, stage, until, source or [], slice_, retry, ray_address, sys.argv[1:])
    raise typer.Exit(code)


@app.command()
def submit(
    to: Annotated[str, typer.Option(help="slurm, ray (a cluster that runs) or kuberay (Ray on Kubernetes).")],
    recipe: RecipeOption = "mini",
    workdir: WorkdirOption = "",
    set_: SetOption = None,
    array: Annotated[int | None, typer.Option(min=1, help="Tasks a map step is cut into (cluster.array).")] = None,
    out: Annotated[str, typer.Option(help="Folder of the job files. Default: ./jobs/<recipe>.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the files; write and hand over nothing.")] = False,
) -> None:
    """Write the build as batch jobs, plain files to read, and hand them to a cluster.

    The recipe's table [cluster] says what they ask for. --out must not hold jobs of other settings: they may be queued.

    rs5m-build submit --to slurm -r mine.toml -w /lustre/rs5m --set cluster.partition=cpu

    rs5m-build submit --to ray -r mine.toml -w s3://BUCKET/rs5m --set cluster.ray_dashboard=http://HEAD:8265

    rs5m-build submit --to kuberay -r mine.toml -w s3://BUCKET/rs5m --set cluster.kubernetes.image=IMAGE

    Exit codes: 0 handed over; 2 refused; 3 written, but sbatch, ray or kubectl is not here to take them.
    """
    from pipeline.submit.command import submit_build

    overrides = [*(set_ or [])]
    overrides += [f"cluster.array={array}"] if array is not None else []
    with _one_line_errors():
        settings, store = _open(recipe, workdir, overrides, brief=True)
        code = submit_build(settings, store, to, out, overrides, dry_run=dry_run)
    raise typer.Exit(code)


@app.command()
def status(
    recipe: RecipeOption = "",
    workdir: WorkdirOption = "",
    set_: SetOption = None,
    as_json: JsonOption = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow the newest run, from any machine, until it ends or Ctrl-C.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0, metavar="S", help="With --watch: seconds between looks. 0: 2; object store: 15.")
    ] = 0.0,
    run_: Annotated[str, typer.Option("--run", metavar="NAME", help="With --watch: this run, a folder in runs/.")] = "",
    files: Annotated[
        bool,
        typer.Option("--files", help="Look whether the files that commits point at are there, too, as a run does."),
    ] = False,
) -> None:
    """Say what is done, what a run would do, and why: which part of which fingerprint changed.

    Commits are believed: whether their files are there and whole is for `status --files`, `run` and `verify` to see.
    """
    from pipeline.commands_read import show_status
    from pipeline.errors import UserError
    from pipeline.watching.follow import watch_run

    with _one_line_errors():
        if (every or run_) and not watch:
            raise UserError("--every and --run say how to watch: give --watch with them")
        settings, store = _open_existing(recipe, workdir, set_ or [], brief=not watch)
        if watch:
            code = watch_run(store, run_, every, as_json=as_json)
        else:
            code = show_status(settings, store, as_json=as_json, files=files)
    raise typer.Exit(code)


@app.command()
def report(
    recipe: RecipeOption = "",
    workdir: WorkdirOption = "",
    set_: SetOption = None,
    as_json: JsonOption = False,
    html: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Write a page instead, with pictures of clusters and pairs: DIR/index.html. "
            "DIR is made; it may hold nothing but an earlier such page, which is replaced.",
        ),
    ] = "",
) -> None:
    """Print the funnel in the published table's columns, then every reason rows left for."""
    from pipeline.commands_read import show_report

    with _one_line_errors():
        settings, store = _open_existing(recipe, workdir, set_ or [], brief=True)
        code = show_report(settings, store, as_json=as_json, html=html)
    raise typer.Exit(code)


@app.command()
def sources(
    recipe: RecipeOption = "", workdir: WorkdirOption = "", set_: SetOption = None, as_json: JsonOption = False
) -> None:
    """List all sources: what each is, what was found of it, what is missing and where to get it."""
    from pipeline.commands_read import show_sources

    with _one_line_errors():
        settings, store = _open_if_there(recipe, workdir, set_ or [])
        code = show_sources(settings, store, as_json=as_json)
    raise typer.Exit(code)


@app.command()
def explain(
    query: Annotated[str, typer.Argument(metavar="ID|URL|SHA256|IMG_NAME", help="A sample, by any of its names.")],
    recipe: RecipeOption = "",
    workdir: WorkdirOption = "",
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell one sample's whole history: what each step did with it, and on what evidence."""
    from pipeline.commands_read import show_explanation

    with _one_line_errors():
        settings, store = _open_existing(recipe, workdir, set_ or [], brief=True)
        code = show_explanation(settings, store, query, as_json=as_json)
    raise typer.Exit(code)


@app.command()
def verify(
    recipe: RecipeOption = "", workdir: WorkdirOption = "", set_: SetOption = None, as_json: JsonOption = False
) -> None:
    """Re-hash every output and re-check every law; corrupted files are set aside, and the next run makes them again."""
    from pipeline.commands_read import show_verification

    with _one_line_errors():
        settings, store = _open_existing(recipe, workdir, set_ or [])
        code = show_verification(settings, store, as_json=as_json)
    raise typer.Exit(code)


@app.command()
def gc(
    recipe: RecipeOption = "",
    workdir: WorkdirOption = "",
    set_: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    superseded: Annotated[
        bool, typer.Option("--superseded", help="Also what only earlier settings need: they are then redone if wanted.")
    ] = False,
) -> None:
    """Remove what no commit points at: leftovers of killed runs and of commits that were undone."""
    from pipeline.commands_read import collect_garbage

    with _one_line_errors():
        settings, store = _open_existing(recipe, workdir, set_ or [])
        code = collect_garbage(settings, store, dry_run=dry_run, superseded=superseded)
    raise typer.Exit(code)


@app.command()
def recut(
    recipe: RecipeOption = "",
    workdir: WorkdirOption = "",
    set_: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would remain: write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the funnel under other outlier thresholds, and a heat map over both; no model is touched."""
    from pipeline.recut import recut as recut_pool

    with _one_line_errors():
        settings, store = _open_existing(recipe, workdir, set_ or [])
        code = recut_pool(settings, store, dry_run=dry_run, as_json=as_json, arguments=sys.argv[1:])
    raise typer.Exit(code)


@app.command("hash-images")
def hash_images(
    images: Annotated[str, typer.Argument(help="Folder, tar or zip of an evaluation set's images.")],
    out: Annotated[str, typer.Option(help="The list to write, e.g. lists/rsicd.parquet.")],
    hash_: Annotated[
        str, typer.Option("--hash", help="exact or fast, as dedup.hash of the builds it is for.")
    ] = "exact",
) -> None:
    """Write a hash list of an evaluation set: what leak-check needs of its images, to keep or to share without them."""
    from pathlib import Path

    from manifests.recipe_files import load_recipe
    from pipeline.leak_check import make_hash_list

    with _one_line_errors():
        recipe = load_recipe("rs5m", [f"dedup.hash={hash_}"])
        code = make_hash_list(images, Path(out), recipe.dedup.hash)
    raise typer.Exit(code)


@app.command("leak-check")
def leak_check(
    benchmark: Annotated[
        list[str], typer.Option(help="NAME=PATH: a hash list, or a folder, tar or zip of images. Repeatable.")
    ],
    recipe: RecipeOption = "",
    workdir: WorkdirOption = "",
    set_: SetOption = None,
    out: Annotated[str, typer.Option(help="Also write every pair found to this Parquet file.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Say which inspected images are images of evaluation sets, turned or mirrored as they may be; changes nothing."""
    from pathlib import Path

    from pipeline.leak_check import check_leaks

    with _one_line_errors():
        settings, store = _open_existing(recipe, workdir, set_ or [])
        code = check_leaks(settings, store, benchmark, Path(out) if out else None, as_json=as_json)
    raise typer.Exit(code)


@app.command()
def train(
    recipe: RecipeOption = "",
    workdir: WorkdirOption = "",
    shards: Annotated[
        str, typer.Option(help="Local tars to train from, e.g. 'tars/{train,val}/*.tar'. Default: the build's release.")
    ] = "",
    set_: SetOption = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only print settings, steps and a memory estimate.")] = False,
) -> None:
    """Train a CLIP on the released tars; resumes at the very step. Under torchrun every process runs this."""
    from pipeline.commands_train import run_train

    with _one_line_errors():
        settings, store = _open_to_train(recipe, workdir, set_ or [], needs_build=not shards)
        code = run_train(settings, store, shards, plan=plan)
    raise typer.Exit(code)


detector = typer.Typer(no_args_is_help=True, help="The remote-sensing detector of the outlier stage.")
app.add_typer(detector, name="detector")


@detector.command("fit")
def detector_fit(
    positive: Annotated[list[str], typer.Option(help="Folder of remote-sensing pictures. Repeatable.")],
    negative: Annotated[list[str], typer.Option(help="Folder of other pictures. Repeatable.")],
    encoder: Annotated[str, typer.Option(help="The encoder the head stands on, as in outlier.encoder.")] = "mini",
    out: Annotated[str, typer.Option(help="The head's file; its evaluation is written beside it as .json.")] = (
        "detector.safetensors"
    ),
    seed: Annotated[int, typer.Option(help="Of the 7:1:2 split.")] = 2023,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 64,
    as_json: JsonOption = False,
) -> None:
    """Train a detector head on pictures of your own and say how well it does on pictures it has not seen."""
    from pipeline.detector import FitOptions, fit_detector

    with _one_line_errors():
        code = fit_detector(FitOptions(positive, negative, encoder, out, seed, device, batch), as_json=as_json)
    raise typer.Exit(code)


def main() -> None:
    """Run the command line."""
    app()


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn the errors a user can act on into one line and an exit code."""
    from manifests.commits import CorruptCommitError
    from manifests.recipe_files import RecipeError
    from manifests.store import StoreError, StoreRefusedError
    from pipeline.errors import ClusterLostError, UserError, is_disk_full
    from pipeline.locks import LockHeldError
    from pipeline.runner import NoSpaceError
    from pipeline.workdir import WorkdirError
    from pipeline.world.errors import WorldError
    from stages.step import ModelMissingError

    try:
        yield
    except KeyboardInterrupt as error:  # here, because typer would turn it into a silent exit
        sys.stderr.write("stopped; nothing half-done is believed: run the same command again to resume\n")
        raise typer.Exit(130) from error
    except (
        RecipeError, WorkdirError, WorldError, LockHeldError, UserError, CorruptCommitError, ModelMissingError,
        StoreRefusedError,
    ) as error:  # fmt: skip
        sys.stderr.write(f"rs5m-build: {error}\n")
        raise typer.Exit(2) from error
    except (StoreError, ClusterLostError) as error:
        sys.stderr.write(f"rs5m-build: {error}\n")
        raise typer.Exit(3) from error
    except NoSpaceError as error:
        sys.stderr.write(f"rs5m-build: no space left: {error}\n")
        raise typer.Exit(3) from error
    except OSError as error:  # the driver's own files: a commit, the run's folder
        if not is_disk_full(error):
            raise
        sys.stderr.write(f"rs5m-build: no space left: {error}; free some space, then run again: it resumes\n")
        raise typer.Exit(3) from error


if __name__ == "__main__":
    main()
