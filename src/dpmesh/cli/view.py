"""`dpmesh view RESULT`: a result in the browser, or as one HTML page."""

import argparse
import socket
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from dpmesh.cli.arguments import add_option, model_options
from dpmesh.cli.streams import say
from dpmesh.errors import InputError, OutputError
from dpmesh.inference.options import ModelOptions

if TYPE_CHECKING:
    from dpmesh.inference.corrections import Correction, Corrections
    from dpmesh.viewer.documents import Document
    from dpmesh.viewer.results import ShownResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("result", type=Path, metavar="RESULT", help="folder of one image or video, or one of its files")
    add("--html", type=Path, metavar="FILE", help="write one page that needs neither server nor network")
    add("--overwrite", action="store_true", help="replace FILE")
    add("--compare", type=Path, metavar="RESULT", help="show another result of the same image or video too")
    add_option(parser, ModelOptions, "weights")
    add("--image", type=Path, metavar="FILE", help="the image or video, where it has moved")
    add(
        "--body",
        type=Path,
        metavar="FILE",
        help="the body (.pkl or .npz) of a result that was not made with the shipped one",
    )
    add("--edit", action="store_true", help="correct the bodies of an image or a video by hand")
    add("--corrections", type=Path, metavar="FILE", help="begin with these corrections; implies --edit")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for the corrected result (default: corrected/ beside RESULT)",
    )
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine alone)")
    add("--port", type=int, metavar="N", help="default: the first free one from 8080 on")
    add("--open", action="store_true", help="open the browser")


def run(args: argparse.Namespace) -> int:
    from dpmesh.viewer.results import open_result, result_folder

    if args.html is not None:
        if args.edit or args.corrections or args.compare:
            raise InputError(
                "--html shows one result, without a server", fix="Leave --edit and --compare out."
            )
        from dpmesh.viewer.pages import write_page

        if args.html.exists() and not args.overwrite:
            raise OutputError(
                "exists already", where=str(args.html), fix="Add --overwrite, or give another name."
            )
        size = write_page(result_folder(args.result), args.html, args.image, args.body)
        say(f"{args.result}: a page of {size / 1e6:.1f} MB → {args.html}")
        return 0
    from dpmesh.viewer.app import Viewer, import_viser

    import_viser()
    port = _free_port(args.host, args.port)
    other = None if args.compare is None else open_result(args.compare, args.body, args.image)
    document = _document(args) if args.edit or args.corrections else None
    result = open_result(args.result, args.body, args.image) if document is None else _first(document, args)
    if other is not None and (other.image_size, len(other.times) > 1) != (
        result.image_size,
        len(result.times) > 1,
    ):
        raise InputError("is not of the same image or video", where=str(args.compare))
    viewer = Viewer(result, other, args.host, port, document)
    say(f"{args.result}: {viewer.url} (Ctrl-C ends it)")
    if args.open:
        webbrowser.open(viewer.url)
    try:
        viewer.wait()
    except KeyboardInterrupt:
        viewer.close()
    return 0


def _free_port(host: str, wanted: int | None) -> int:
    """The port to listen on. Raises InputError where that is not possible."""
    if wanted is not None and not 0 <= wanted <= 65535:
        raise InputError("is not a port", where=f"--port {wanted}")
    if not host:
        raise InputError("is no address", where="--host")
    reason = ""
    for port in range(8080, 8100) if wanted is None else (wanted,):
        try:
            with socket.create_server((host, port)) as free:
                return int(free.getsockname()[1])
        except OSError as error:
            reason = error.strerror or str(error)
    raise InputError(
        f"cannot listen there ({reason})", where=f"{host}:{wanted or 8080}", fix="Choose another --port."
    )


def _document(args: argparse.Namespace) -> "Document":
    """The image or video to correct. Raises InputError where it cannot be corrected."""
    from dpmesh.inference.corrections import Corrections
    from dpmesh.viewer.documents import CorrectedImage, CorrectedVideo, leave_out, video_entry
    from dpmesh.viewer.results import SCENE, layer_of, recorded_video, result_folder

    folder = result_folder(args.result)
    out = args.out or folder.parent / "corrected"
    listed = Corrections.read(args.corrections) if args.corrections else Corrections()
    if (folder / SCENE).is_file():
        from dpmesh.inference.predictor import Predictor
        from dpmesh.inference.scene import Scene

        scene = Scene.load(folder, args.image, args.body)
        steps, fault = _steps(listed, out, scene.source, scene.source_sha256)
        predictor = Predictor.from_pretrained(**vars(model_options(args)))
        document: Document = CorrectedImage(scene, predictor, out, folder.name, steps)
    else:
        from dpmesh.video.tables import read_text
        from dpmesh.video.tracks import Tracks

        record = read_text(folder)
        video = str(args.image) if args.image else recorded_video(folder)
        entry = video_entry(record, [])
        steps, fault = _steps(listed, out, entry.source, entry.sha256)
        tracks, body = Tracks.load(folder), layer_of(args.body)
        document = CorrectedVideo(tracks, body, record, video, out, folder.name, steps)
    if fault:
        leave_out(document, fault)
    return document


def _steps(listed: "Corrections", out: Path, source: str, sha256: str) -> "tuple[list[Correction], str]":
    """Those of a list, without one those saved before, which the next saving would replace; and why these are not used.
    Raises InputError where the list has some, and none of this image or video."""
    from dpmesh.inference.corrections import Corrections
    from dpmesh.viewer.documents import LIST

    if listed.entries:
        steps = list(listed.of(source, sha256))
        if not steps:
            raise InputError(f"has no corrections of {Path(source).name}", where=listed.where)
        return steps, ""
    try:
        before = Corrections.read(out / LIST) if (out / LIST).exists() else Corrections()
    except InputError as error:
        fix = "Move it away, or give another --out."
        raise InputError(error.what, where=error.where, fix=fix) from None
    try:
        return list(before.of(source, sha256)), ""
    except InputError as error:
        return [], error.what


def _first(document: "Document", args: argparse.Namespace) -> "ShownResult":
    """The result as it opens: uncorrected where what was saved before does not fit it. Raises InputError for such
    --corrections."""
    from dpmesh.viewer.documents import LIST, leave_out

    count = 0 if args.corrections else len(document.steps)
    try:
        result = document.shown()
    except InputError as error:
        if not count:
            raise
        leave_out(document, error.what)
        result = document.shown()
    if document.unapplied:
        say(document.unapplied)
    elif count:
        number = f"{count} correction{'s' * (count != 1)}"
        say(
            f"goes on with {number} of {document.out / LIST}; Undo takes them back, another --out begins anew"
        )
    return result
