// three.js: the world positions of each skinned mesh's vertices and of its joints, and the camera, as JSON.
import { readFileSync } from "node:fs";

globalThis.self = globalThis; // the loader expects a browser's
const { Vector3 } = await import("three");
const { GLTFLoader } = await import("three/addons/loaders/GLTFLoader.js");

const data = readFileSync(process.argv[2]);
const file = data.buffer.slice(data.byteOffset, data.byteOffset + data.length);
const { scene, cameras } = await new GLTFLoader().parseAsync(file, "");
const moved = process.argv[3] && scene.getObjectByName(process.argv[3]);
if (moved) moved.position.x += 1;
scene.updateMatrixWorld(true);
const meshes = {};
scene.traverse((node) => {
  if (!node.isSkinnedMesh) return;
  node.skeleton.update();
  const vertices = [];
  for (let i = 0; i < node.geometry.attributes.position.count; i++) {
    const point = node.getVertexPosition(i, new Vector3()).applyMatrix4(node.matrixWorld);
    vertices.push(point.toArray());
  }
  const joints = node.skeleton.bones.map((bone) => bone.getWorldPosition(new Vector3()).toArray());
  meshes[node.name] = { vertices, joints };
});
const camera = cameras[0] && {
  fov: cameras[0].fov,
  aspect: cameras[0].aspect,
  position: cameras[0].getWorldPosition(new Vector3()).toArray(),
  direction: cameras[0].getWorldDirection(new Vector3()).toArray(),
};
console.log(JSON.stringify({ meshes, camera }));
