"""`dpmesh data check ROOT` and `dpmesh data pack ROOT OUT`: check and pack the training sets."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dpmesh.cli.arguments import count, folder
from dpmesh.cli.streams import say

if TYPE_CHECKING:
    from dpmesh.data.annotation import Annotation
    from dpmesh.data.fits import FitBodies


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="check|pack")
    check = actions.add_parser(
        "check",
        help="counts, missing files, suspicious units, contact sheets; or packed shards",
        allow_abbrev=False,
    )
    pack = actions.add_parser("pack", help="write shards, from which loading is fast", allow_abbrev=False)
    for action in (check, pack):
        action.add_argument("root", metavar="ROOT", help="holds Human36M, MuCo, MSCOCO, CrowdPose, 3DPW")
        action.add_argument(
            "--sets",
            nargs="+",
            metavar="SET",
            help="of h36m muco coco crowdpose 3dpw (default: those below ROOT)",
        )
        action.add_argument("--no-fits", action="store_true", help="joints alone: needs no SMPL")
        action.add_argument(
            "--free-body",
            action="store_true",
            help="fits are for the free body (tools/fixtures/set_twins.py)",
        )
        action.add_argument(
            "--fit-err",
            default="all",
            choices=("all", "below", "above"),
            help="CrowdPose (docs/guide/data.md)",
        )
    check.add_argument("--split", default="train", choices=("train", "validation"))
    pack.add_argument(
        "--split",
        default="all",
        choices=("all", "train", "validation"),
        help="default: every split that exists",
    )
    check.add_argument(
        "--out", type=folder, default="data_check", metavar="DIR", help="contact sheets (default: data_check)"
    )
    check.add_argument("--skip-images", action="store_true", help="do not open every image")
    check.add_argument(
        "--augmented", action="store_true", help="sheets with augmentation and noise, as in training"
    )
    pack.add_argument(
        "out", type=folder, metavar="OUT", help="folder for the shards; a run that was stopped resumes there"
    )
    pack.add_argument("--side", type=count, default=384, metavar="PX", help="stored window (default: 384)")
    pack.add_argument("--per-shard", type=count, default=2000, metavar="N", help="people (default: 2000)")
    pack.add_argument("--quality", type=count, default=92, metavar="Q", help="of the JPEGs (default: 92)")


def run(args: argparse.Namespace) -> int:
    """The exit status: 1 where something is missing, suspicious or torn."""
    root = Path(args.root)
    if args.action == "pack":
        return _pack(root, args)
    from dpmesh.data.shards import is_packed

    return _check_shards(root, args) if is_packed(root) else _check(root, args)


def _sets(root: Path, args: argparse.Namespace) -> list[str]:
    from dpmesh.data.sources import SETS
    from dpmesh.errors import ConfigError, InputError

    if unknown := [name for name in args.sets or () if name not in SETS]:
        raise ConfigError(f"no data set is called {unknown[0]!r}", fix=f"There are: {', '.join(SETS)}.")
    names = args.sets or [
        name
        for name, s in SETS.items()
        if os.path.isdir(s.folder(root)) and (args.split == "all" or args.split in s.splits)
    ]
    if not names:
        raise InputError(
            f"no data set with {'any' if args.split == 'all' else f'a {args.split}'} split is here",
            where=str(root),
            fix="Expected folders such as Human36M or MSCOCO; docs/guide/data.md shows them.",
        )
    return list(names)


def _bodies(args: argparse.Namespace) -> "FitBodies | None":
    if args.no_fits or not args.free_body:
        return None
    from dpmesh.body.files import free_body
    from dpmesh.data.fits import FitBodies

    return FitBodies(free_body(), foreign=True)


def _check(root: Path, args: argparse.Namespace) -> int:
    import io

    from PIL import Image

    from dpmesh.data.augment import AugmentConfig
    from dpmesh.data.check import check_people, folder_sheet, source_sheet
    from dpmesh.data.sources import SETS, read_folder
    from dpmesh.errors import DPMeshError
    from dpmesh.io import atomic_write

    bad, out = False, Path(args.out)
    for name in _sets(root, args):
        try:
            source = read_folder(
                name, root, args.split, "none" if args.no_fits else "smpl", _bodies(args), args.fit_err
            )
            report = check_people(source.people, not args.skip_images)
        except DPMeshError as error:
            say(f"{SETS[name].title}: {error}")
            bad = True
            continue
        say(
            f"{SETS[name].title} {args.split}: {report.people:,} people in {report.images:,} images,"
            f" {report.measured:,} with 3D joints, {report.fitted:,} with a fit"
        )
        for reason, number in sorted(source.dropped.items()):
            say(f"  left out: {reason}: {number:,}")
        for what, finding in report.findings.items():
            bad = True
            say(f"  LOOK: {what}: {finding.count:,}, such as {', '.join(finding.examples)}")
        sheet = source_sheet(source, AugmentConfig()) if args.augmented else folder_sheet(source.people)
        if sheet is not None:
            file = io.BytesIO()
            Image.fromarray(sheet).save(file, "JPEG", quality=90)
            target = out / f"{name}-{args.split}.jpg"
            atomic_write(target, file.getvalue())
            say(f"  sheet: {target}")
    return 1 if bad else 0


def _check_shards(root: Path, args: argparse.Namespace) -> int:
    from dpmesh.data.check import check_shards

    counts, torn = check_shards(root)
    for name, number in counts.items():
        say(f"{name}: {number:,} people in whole shards")
    for shard, reason in torn.items():
        say(f"TORN {shard}: {reason}")
    if torn:
        shards = sum(name.endswith(".tar") for name in torn)
        torn_shards = f"{shards} shards are torn; dpmesh data pack writes them again."
        people = f"{len(torn) - shards} people are damaged; pack them again in another folder."
        for line in [torn_shards] * (shards > 0) + [people] * (len(torn) > shards):
            say(line)
    return 1 if torn else 0


def _pack(root: Path, args: argparse.Namespace) -> int:
    from dpmesh.data.sources import SETS, read_folder
    from dpmesh.errors import DPMeshError

    for name in _sets(root, args):
        splits = SETS[name].splits if args.split == "all" else (args.split,)
        lacking: list[DPMeshError] = []
        for split in splits:
            try:
                source = read_folder(
                    name, root, split, "none" if args.no_fits else "smpl", _bodies(args), args.fit_err
                )
            except DPMeshError as error:
                lacking.append(error)
                if len(lacking) == len(splits):  # no split of this set can be read
                    raise
                say(f"{name}-{split}: not packed: {' '.join(str(error).split())}")
                continue
            _pack_people(source.people, f"{name}-{split}", args)
    return 0


def _pack_people(people: "list[Annotation]", name: str, args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from dpmesh.data.pack import PackConfig, pack

    console = Console(highlight=False, soft_wrap=True)
    config = PackConfig(side=args.side, per_shard=args.per_shard, quality=args.quality)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(name, total=len(people))
        done = pack(
            people,
            Path(args.out),
            name,
            config,
            lambda n: bar.update(task, completed=n),
        )
    say(
        f"{name}: {done.people:,} people; {done.written} shards written, {done.intact} already intact,"
        f" {len(done.skipped)} people skipped"
    )
    for record, reason in list(done.skipped.items())[:10]:
        say(f"  skipped {record}: {reason}")
