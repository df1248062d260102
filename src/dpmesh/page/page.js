// The viewer of one result. Frame of the drawing: glTF's (x right, y up, the camera at the origin looking along -z).
// Data: page.py. Clicks and drags: pointer.js. `window.dpmesh` is for tests and for pages that embed this one.
"use strict";

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const [HEIGHT, WIDTH] = data.image_size;
const NEAR = 0.05, FAR = 500, FAINT = 0.25; // opacity of other hypotheses
const state = { eye: true, lens: false, time: 0, playing: false, picked: [] };

const renderer = new THREE.WebGLRenderer({ canvas: $("view"), antialias: true, alpha: true, preserveDrawingBuffer: true });
renderer.setPixelRatio(Math.min(window.devicePixelRatio || 1, 2));
const scene = new THREE.Scene();
scene.add(new THREE.HemisphereLight(0xffffff, 0x8d8d99, 2.2));
const sun = new THREE.DirectionalLight(0xffffff, 1.6);
sun.position.set(-1, 2, 1.5);
scene.add(sun);

const eye = new THREE.PerspectiveCamera(50, WIDTH / HEIGHT, NEAR, FAR);
const free = new THREE.PerspectiveCamera(45, 1, NEAR, FAR);
const controls = new THREE.OrbitControls(free, $("view"));
controls.addEventListener("change", draw);
let bodies = {}, mixer = null, duration = 0, frustum = null, floor = null, depths = {};

// ------------------------------------------------------------------------------------------------- the camera's eye
// K maps the camera frame to pixels whose centres are integers; the image spans -0.5 to size - 0.5.
function setProjection() {
  const [[fx, skew, cx], [, fy, cy]] = data.K;
  const m = new THREE.Matrix4();
  m.set(
    (2 * fx) / WIDTH, (-2 * skew) / WIDTH, 1 - (2 * (cx + 0.5)) / WIDTH, 0,
    0, (2 * fy) / HEIGHT, (2 * (cy + 0.5)) / HEIGHT - 1, 0,
    0, 0, -(FAR + NEAR) / (FAR - NEAR), (-2 * FAR * NEAR) / (FAR - NEAR),
    0, 0, -1, 0,
  );
  eye.projectionMatrix.copy(m);
  eye.projectionMatrixInverse.copy(m).invert();
}

function layout() {
  const stage = $("stage").getBoundingClientRect();
  const zoom = Math.min(stage.width / WIDTH, stage.height / HEIGHT), inside = [WIDTH * zoom, HEIGHT * zoom];
  const [width, height] = state.eye ? inside : [stage.width, stage.height];
  const place = `left:${(stage.width - width) / 2}px;top:${(stage.height - height) / 2}px;width:${width}px;height:${height}px`;
  for (const id of ["view", "marks", "photo", "film"]) $(id).style.cssText = place;
  renderer.setSize(width, height, false);
  $("marks").width = width * renderer.getPixelRatio();
  $("marks").height = height * renderer.getPixelRatio();
  free.aspect = width / height;
  free.updateProjectionMatrix();
  if (state.lens) free.projectionMatrix.makeScale(inside[0] / width, inside[1] / height, 1).multiply(eye.projectionMatrix);
  free.projectionMatrixInverse.copy(free.projectionMatrix).invert();
  draw();
}

// --------------------------------------------------------------------------------------------------------- the rows
// A person's rows are in order of time; the row at a time is the last that has begun, unless it lies too far back.
function rowAt(person, time) {
  if (!data.animated) return 0;
  const times = person.times;
  let low = 0, high = times.length - 1;
  if (time < times[0] - 1e-6) return -1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (times[middle] <= time + 1e-6) low = middle; else high = middle - 1;
  }
  return time - times[low] < 1.5 * data.step ? low : -1;
}

const inDrawing = ([x, y, z]) => new THREE.Vector3(x, -y, -z);

function sigmaColour(sigma) {
  const t = Math.min(Math.max(sigma / data.unsure, 0), 1) * (data.colours.length - 1);
  const i = Math.min(Math.floor(t), data.colours.length - 2), u = t - i;
  const [a, b] = [data.colours[i], data.colours[i + 1]];
  return new THREE.Color().setRGB(...a.map((v, k) => (v + (b[k] - v) * u) / 255), THREE.SRGBColorSpace);
}

// ----------------------------------------------------------------------------------------------------------- people
function addPerson(person, gltf) {
  const mesh = gltf.scene.getObjectByName(`${person.name}_mesh`);
  const node = gltf.scene.getObjectByName(person.name);
  mesh.frustumCulled = false; // its bounds are those of the rest pose
  mesh.material = mesh.material.clone();
  const over = { color: 0xffffff, depthTest: false, transparent: true }; // drawn after bodies that are transparent, too
  const dots = new THREE.Group(), lines = new THREE.LineSegments(
    new THREE.BufferGeometry(), new THREE.LineBasicMaterial(over));
  lines.geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array(data.bones.length * 6), 3));
  lines.frustumCulled = false;
  lines.renderOrder = 2;
  const ball = new THREE.SphereGeometry(0.018, 12, 8);
  data.joint_names.forEach((name, joint) => {
    const dot = new THREE.Mesh(ball, new THREE.MeshBasicMaterial(over));
    dot.userData = { person: person.name, joint, name };
    dot.renderOrder = 3;
    dots.add(dot);
  });
  scene.add(dots, lines);
  const colour = new THREE.Color().copy(mesh.material.color);
  const others = person.others.map((name) => {
    const other = gltf.scene.getObjectByName(`${name}_mesh`);
    other.frustumCulled = false;
    other.material = Object.assign(mesh.material.clone(), { transparent: true, opacity: FAINT, depthWrite: false });
    return other;
  });
  if (others.length) $("several").hidden = false;
  const body = { person, mesh, node, dots, lines, colour, others, shown: true };
  bodies[person.name] = body;

  const label = document.createElement("label");
  const show = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
  const pick = Object.assign(document.createElement("input"), { type: "color", value: `#${colour.getHexString()}` });
  pick.setAttribute("aria-label", `colour of ${person.label}`);
  show.addEventListener("change", () => { body.shown = show.checked; draw(); });
  pick.addEventListener("input", () => { body.colour.set(pick.value); draw(); });
  label.append(show, pick, document.createTextNode(person.label));
  $("people").append(label);
  if (person.surface_sigma) {
    const bytes = Uint8Array.from(atob(person.surface_sigma), (c) => c.charCodeAt(0));
    const colours = new Float32Array(bytes.length * 3);
    bytes.forEach((level, i) => sigmaColour((level / 255) * data.unsure).toArray(colours, 3 * i));
    mesh.geometry = mesh.geometry.clone();
    mesh.geometry.setAttribute("color", new THREE.BufferAttribute(colours, 3));
  }
}

function update() {
  const bySigma = $("sigma").checked, opacity = Number($("opacity").value);
  for (const body of Object.values(bodies)) {
    const { person, mesh, dots, lines } = body;
    const row = rowAt(person, state.time), present = row >= 0 && body.shown;
    mesh.visible = present && $("bodies").checked;
    const material = mesh.material, vertexColours = bySigma && Boolean(person.surface_sigma);
    if (vertexColours) material.color.set(0xffffff); else material.color.copy(body.colour);
    const faint = present && person.interpolated && person.interpolated[row] ? 0.4 : 1; // not detected in this frame
    const changes = { vertexColors: vertexColours, transparent: opacity * faint < 1 }; // of the shader
    if (Object.keys(changes).some((name) => material[name] !== changes[name])) material.needsUpdate = true;
    Object.assign(material, changes);
    material.opacity = opacity * faint;
    for (const other of body.others) {
      other.visible = mesh.visible && $("hypotheses").checked;
      other.material.color.copy(body.colour);
    }
    dots.visible = lines.visible = present && $("skeleton").checked;
    if (!present) continue;
    const joints = person.joints3d[row].map(inDrawing);
    dots.children.forEach((dot, i) => {
      dot.position.copy(joints[i]);
      const sigma = person.joint_sigma && person.joint_sigma[row][i];
      if (state.picked.includes(dot)) dot.material.color.set(0xffe066);
      else if (bySigma && person.joint_sigma) dot.material.color.copy(sigmaColour(sigma));
      else dot.material.color.set(0xffffff);
    });
    const place = lines.geometry.attributes.position;
    data.bones.forEach(([a, b], i) => {
      joints[a].toArray(place.array, 6 * i);
      joints[b].toArray(place.array, 6 * i + 3);
    });
    place.needsUpdate = true;
  }
}

// ---------------------------------------------------------------------------------------------------------- drawing
function draw() {
  if (mixer) mixer.setTime(Math.min(state.time, duration - 1e-4));
  update();
  $("scale").hidden = !$("sigma").checked;
  $("photo").hidden = !(state.eye && data.image && $("image").checked);
  $("film").hidden = !(state.eye && data.video && $("image").checked);
  followFilm();
  if (frustum) frustum.visible = !state.eye;
  if (frustum && frustum.userData.picture) frustum.userData.picture.visible = $("image").checked;
  if (floor) floor.visible = $("floor").checked;
  renderer.render(scene, state.eye ? eye : free);
  drawMarks();
  measure();
  if (data.animated) {
    $("time").value = state.time;
    $("clock").textContent = `${state.time.toFixed(2)} / ${duration.toFixed(2)} s`;
  }
}

// The film follows the time of the animation.
function followFilm() {
  const film = $("film");
  if (!data.video) return;
  film.playbackRate = Number($("speed").value);
  if (state.playing === film.paused) { if (state.playing) film.play().catch(() => {}); else film.pause(); }
  const time = state.time - data.start;
  if (Math.abs(film.currentTime - time) > (state.playing ? 0.15 : 0.5 * data.step)) film.currentTime = time;
}

function drawMarks() {
  const canvas = $("marks"), pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  if (!state.eye || !$("keypoints").checked) return;
  const zoom = canvas.width / WIDTH;
  for (const { person, colour, shown } of Object.values(bodies)) {
    const row = rowAt(person, state.time);
    if (row < 0 || !shown) continue;
    pen.fillStyle = `#${colour.getHexString()}`;
    pen.strokeStyle = "#fff";
    for (const [x, y, confidence] of person.keypoints2d[row]) {
      if (!(confidence > 0)) continue;
      pen.globalAlpha = 0.35 + 0.65 * Math.min(confidence, 1);
      pen.beginPath();
      pen.arc((x + 0.5) * zoom, (y + 0.5) * zoom, 4 * renderer.getPixelRatio(), 0, 7);
      pen.fill();
      pen.stroke();
    }
  }
}

function addFrustum(depth) {
  const [[fx, , cx], [, fy, cy]] = data.K;
  const corner = (x, y) => inDrawing([((x - cx) / fx) * depth, ((y - cy) / fy) * depth, depth]);
  const corners = [corner(-0.5, -0.5), corner(WIDTH - 0.5, -0.5), corner(WIDTH - 0.5, HEIGHT - 0.5), corner(-0.5, HEIGHT - 0.5)];
  const points = [];
  corners.forEach((c, i) => points.push(new THREE.Vector3(), c, c, corners[(i + 1) % 4]));
  frustum = new THREE.Group();
  frustum.add(new THREE.LineSegments(
    new THREE.BufferGeometry().setFromPoints(points), new THREE.LineBasicMaterial({ color: 0x7f8c99 })));
  if (data.image || data.video) {
    const shape = new THREE.BufferGeometry().setFromPoints(corners);
    shape.setAttribute("uv", new THREE.Float32BufferAttribute([0, 1, 1, 1, 1, 0, 0, 0], 2));
    shape.setIndex([0, 2, 1, 0, 3, 2]);
    const texture = data.image ? new THREE.TextureLoader().load(data.image, draw) : new THREE.VideoTexture($("film"));
    texture.colorSpace = THREE.SRGBColorSpace;
    const picture = new THREE.Mesh(shape, new THREE.MeshBasicMaterial({ map: texture, side: THREE.DoubleSide }));
    frustum.userData.picture = picture;
    frustum.add(picture);
  }
  scene.add(frustum);
}

// The floor: where the result knows it, else level at the height of the lowest joint of the first row.
function addFloor(middle, lowest) {
  // In short pieces: some renderers drop a line whole that begins behind the camera.
  const points = [], at = (x, z) => points.push(new THREE.Vector3(x / 2, 0, z / 2)); // half metres
  for (let i = -10; i <= 10; i += 1) for (let k = -10; k < 10; k += 1) { at(i, k); at(i, k + 1); at(k, i); at(k + 1, i); }
  floor = new THREE.LineSegments(
    new THREE.BufferGeometry().setFromPoints(points), new THREE.LineBasicMaterial({ color: 0x6d7885 }));
  const up = data.floor ? inDrawing(data.floor.up).normalize() : new THREE.Vector3(0, 1, 0);
  floor.quaternion.setFromUnitVectors(new THREE.Vector3(0, 1, 0), up);
  // Ground: up · point + height = 0 on the floor.
  const drop = data.floor ? -data.floor.height : lowest;
  floor.position.copy(middle).addScaledVector(up, drop - middle.dot(up));
  scene.add(floor);
}

// --------------------------------------------------------------------------------------------------------- controls
function look(atEye) {
  state.eye = atEye;
  $("eye").setAttribute("aria-pressed", atEye);
  $("orbit").setAttribute("aria-pressed", !atEye);
  controls.enabled = !atEye;
  layout();
}

function savePng() {
  const view = $("view"), canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [view.width, view.height];
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#14171b";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  if (!$("photo").hidden) pen.drawImage($("photo"), 0, 0, canvas.width, canvas.height);
  if (!$("film").hidden) pen.drawImage($("film"), 0, 0, canvas.width, canvas.height);
  pen.drawImage(view, 0, 0);
  pen.drawImage($("marks"), 0, 0);
  const link = Object.assign(document.createElement("a"), { href: canvas.toDataURL("image/png"), download: "view.png" });
  link.click();
}

function play(on) {
  state.playing = on;
  $("play").textContent = on ? "❚❚" : "▶";
  $("play").setAttribute("aria-label", on ? "Pause" : "Play");
  if (!on) return;
  if (state.time >= duration - 1e-3) state.time = data.start;
  let last = performance.now();
  const tick = (now) => {
    if (!state.playing) return;
    state.time += ((now - last) / 1000) * Number($("speed").value);
    last = now;
    if (state.time >= duration) {
      if ($("loop").checked) state.time = data.start; else { state.time = duration; play(false); }
    }
    draw();
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}

function start(gltf) {
  scene.add(gltf.scene);
  data.people.forEach((person) => addPerson(person, gltf));
  const first = data.people.flatMap((person) => person.joints3d[0].map(inDrawing));
  const box = new THREE.Box3().setFromPoints(first.length ? first : [new THREE.Vector3(0, 0, -3)]);
  const middle = box.getCenter(new THREE.Vector3()), size = box.getSize(new THREE.Vector3()).length();
  depths = { middle: Math.max(NEAR, -middle.z), farthest: Math.max(1, -box.min.z), frustum: Math.max(0.3, 0.25 * -middle.z) };
  addFrustum(depths.frustum);
  addFloor(middle, box.min.y - 0.05);
  controls.target.copy(middle);
  free.position.copy(middle).add(new THREE.Vector3(0.9, 0.35, 0.7).normalize().multiplyScalar(Math.max(2.5, 1.5 * size)));
  controls.update();
  if (data.animated) {
    mixer = new THREE.AnimationMixer(gltf.scene);
    duration = data.duration;
    gltf.animations.forEach((clip) => {
      clip.duration = duration + 1; // never ends: the last frame's pose stays
      mixer.clipAction(clip).play();
    });
    $("time").min = state.time = data.start;
    $("time").max = duration;
    $("timeline").hidden = false;
  }
  setProjection();
  look(true);
  window.dpmesh.ready = true;
}

function fail(error) {
  $("error").hidden = false;
  $("error").textContent = `This page cannot show its result: ${error.message || error}`;
}

window.dpmesh = {
  ready: false,
  setTime: (time) => { state.time = Math.min(Math.max(time, data.start), duration); draw(); },
  look,
  // Image pixels of a joint of the body that is drawn, by the camera's eye.
  bone: (person, joint) => {
    scene.updateMatrixWorld(true);
    const p = bodies[person].mesh.skeleton.bones[joint].getWorldPosition(new THREE.Vector3()).project(eye);
    return [((p.x + 1) * WIDTH) / 2 - 0.5, ((1 - p.y) * HEIGHT) / 2 - 0.5];
  },
};

$("unsure").hidden = !data.people.some((person) => person.joint_sigma);
$("bar").style.background = `linear-gradient(to right, ${data.colours.map((colour) => `rgb(${colour})`)})`;
$("ticks").append(...data.ticks.map((text) => Object.assign(document.createElement("span"), { textContent: text })));
document.title = $("title").textContent = data.title;
if (data.image) $("photo").src = data.image;
if (data.video) $("film").src = data.video;
$("film").addEventListener("seeked", () => {
  if (frustum) frustum.userData.picture.material.map.needsUpdate = true;
  renderer.render(scene, state.eye ? eye : free);
});
$("eye").addEventListener("click", () => look(true));
$("orbit").addEventListener("click", () => look(false));
$("png").addEventListener("click", savePng);
$("play").addEventListener("click", () => play(!state.playing));
$("time").addEventListener("input", () => { play(false); window.dpmesh.setTime(Number($("time").value)); });
for (const id of ["bodies", "skeleton", "keypoints", "image", "floor", "hypotheses", "sigma", "opacity"]) $(id).addEventListener("input", draw);
window.addEventListener("resize", layout);
window.addEventListener("keydown", (event) => {
  if (event.target.tagName === "INPUT" || event.target.tagName === "SELECT") return;
  if (event.key === " " && data.animated) { event.preventDefault(); play(!state.playing); }
});
watchPointer();
const bytes = Uint8Array.from(atob($("glb").textContent), (c) => c.charCodeAt(0));
new THREE.GLTFLoader().parse(bytes.buffer, "", start, fail);
