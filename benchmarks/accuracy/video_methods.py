"""Methods of clips next to each other, on the frames in which each of them has the person.

    python -m benchmarks.accuracy.video_methods RESULT... [--kind crossing] [--json OUT.json]

RESULT: folders that `dpmesh eval run synthocc-video --method METHOD` wrote, of the same people.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import commit
from dpmesh.evaluate.common_frames import MEASURES, on_common_frames
from dpmesh.evaluate.report import RESULT, ROWS, read
from dpmesh.evaluate.results import FRAME_COLUMNS, Rows, load


def common(results: list[Rows], kind: str | None = None) -> dict[str, Any]:
    """People, their frames that all results have, the share of all in sight, and each measure's means for each result
    over people."""
    names = [set(rows.ids) for rows in results]
    shared = sorted(set.intersection(*names))
    frames = []
    for rows in results:
        at = {name: i for i, name in enumerate(rows.ids)}
        chosen = [at[name] for name in shared if kind is None or rows.sequences[at[name]] == kind]
        frames.append(rows.frames[chosen])
    errors = np.stack(frames)[..., FRAME_COLUMNS.index("mpjpe")]
    figures = on_common_frames(frames)
    means = [{name: float(np.nanmean(one[name])) for name in MEASURES} for one in figures]
    medians = [{name: float(np.nanmedian(one[name])) for name in MEASURES} for one in figures]
    return {
        "people": len(frames[0]),
        "frames": int(np.isfinite(errors).all(0).sum()),
        "own frames": np.isfinite(errors).sum((1, 2)).tolist(),
        "mean": means,
        "median": medians,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--kind")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [load(folder / ROWS)[0] for folder in options.results]
    found = common(rows, options.kind)
    print(f"{found['people']} people, {found['frames']} frames of all; mean (median) over people")
    print("|method |frames |" + " |".join(MEASURES) + "|")
    for i, folder in enumerate(options.results):
        cells = [f"{found['mean'][i][name]:.1f} ({found['median'][i][name]:.1f})" for name in MEASURES]
        print(f"|{folder.name} |{found['own frames'][i]} |" + " |".join(cells) + "|")
    if options.json:
        about = {
            folder.name: read(folder / RESULT)["figures"] | {"persons": read(folder / RESULT)["persons"]}
            for folder in options.results
        }
        stored = {"commit": commit(), "kind": options.kind, "common": found, "results": about}
        options.json.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
