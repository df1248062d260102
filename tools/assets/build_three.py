"""Bundle three.js for the pages of results: `python -m tools.assets.build_three`.

Needs node.js with npm. Only what the page's script names is in the bundle, so a name that it newly uses is added here.
The same versions give the same bytes.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

THREE, ESBUILD = "0.180.0", "0.28.2"
NAMES = (
    "AnimationMixer", "Box3", "BufferAttribute", "BufferGeometry", "Color", "DirectionalLight", "DoubleSide",
    "Float32BufferAttribute", "Group", "HemisphereLight", "LineBasicMaterial", "LineSegments", "Matrix4",
    "Mesh", "MeshBasicMaterial", "PerspectiveCamera", "Scene", "SphereGeometry", "SRGBColorSpace", "TextureLoader",
    "Vector3", "VideoTexture", "WebGLRenderer",
)  # fmt: skip
TARGET = Path(__file__).parents[2] / "src/dpmesh/shipped/page/three.js"
_ENTRY = f"""export {{ {", ".join(NAMES)} }} from "three";
export {{ OrbitControls }} from "three/examples/jsm/controls/OrbitControls.js";
export {{ GLTFLoader }} from "three/examples/jsm/loaders/GLTFLoader.js";
"""


def main() -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is missing: install node.js")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "package.json").write_text("{}")
        subprocess.run(
            [npm, "install", "--silent", f"three@{THREE}", f"esbuild@{ESBUILD}"], cwd=folder, check=True
        )
        (folder / "entry.js").write_text(_ENTRY)
        flags = ["--bundle", "--minify", "--format=iife", "--global-name=THREE", "--legal-comments=inline"]
        licence = (folder / "node_modules/three/LICENSE").read_text().strip()
        flags.append(f"--banner:js=/* three.js {THREE}. {licence} */")
        program = folder / "node_modules/.bin/esbuild"
        subprocess.run([program, "entry.js", *flags, f"--outfile={TARGET}"], cwd=folder, check=True)
    print(f"{TARGET.name}: {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
