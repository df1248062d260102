"""`dpmesh view RESULT`: a result in the browser, or as one HTML page."""

import argparse
import webbrowser
from pathlib import Path

from dpmesh.cli.streams import say
from dpmesh.errors import InputError, OutputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("result", type=Path, metavar="RESULT", help="folder of one image or video, or one of its files")
    add("--html", type=Path, metavar="FILE", help="write one page that needs neither server nor network")
    add("--overwrite", action="store_true", help="replace FILE")
    add("--compare", type=Path, metavar="RESULT", help="show another result of the same image or video too")
    add("--image", type=Path, metavar="FILE", help="the image or video, where it has moved")
    add(
        "--body",
        type=Path,
        metavar="FILE",
        help="the body (.pkl or .npz) of a result that was not made with the shipped one",
    )
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine alone)")
    add("--port", type=int, default=8080, metavar="N", help="default: 8080, or the next free one")
    add("--open", action="store_true", help="open the browser")


def run(args: argparse.Namespace) -> int:
    from dpmesh.viewer.results import open_result, result_folder

    if args.html is not None:
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
    if not 0 <= args.port <= 65535:
        raise InputError("is not a port", where=f"--port {args.port}")
    other = None if args.compare is None else open_result(args.compare, args.body, args.image)
    viewer = Viewer(open_result(args.result, args.body, args.image), other, args.host, args.port)
    say(f"{args.result}: {viewer.url} (Ctrl-C ends it)")
    if args.open:
        webbrowser.open(viewer.url)
    try:
        viewer.wait()
    except KeyboardInterrupt:
        viewer.close()
    return 0
