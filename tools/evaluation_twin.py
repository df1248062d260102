"""The evaluation sets in miniature: files in the exact layouts of the real ones, filled with made-up people.

python tools/evaluation_twin.py DIR

DIR/data gets 3DPW (official pickles and JSON), 3DOH (both layouts) and Panoptic; DIR/assets gets stand-ins for SMPL
(the free body with 14 vertices taken away, so that it has SMPL's 6,890) and for the Human3.6M regressor. Then:
DPMESH_ASSETS=DIR/assets dpmesh eval 3dpw --data DIR/data --out DIR/out

The people are chosen to betray mistakes: men and women differ, the world is not the camera's frame, rows of the
regressor do not sum to 1, poses are not symmetric. Written from the descriptions of the files, not from the readers.

The people stand in evaluation_twin_people.py; each data set has a file beside it.
"""

import argparse
from pathlib import Path

from evaluation_twin_3doh import write_3doh
from evaluation_twin_3dpw import write_3dpw_json, write_3dpw_official, write_3dpw_pictures
from evaluation_twin_panoptic import write_panoptic
from evaluation_twin_people import World, make_sequences, smpl_files


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    world = World(smpl_files(folder / "assets"))
    sequences, data = make_sequences(world), folder / "data"
    write_3dpw_official(data, sequences)
    write_3dpw_pictures(data, world, sequences)
    write_3dpw_json(data, world, sequences)
    write_3doh(data, world)
    write_panoptic(data, world)


if __name__ == "__main__":
    main()
