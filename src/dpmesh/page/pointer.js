// Clicks and drags on the drawing. page.js calls these; what they name besides is there.
"use strict";

// A drag in the camera's view goes over into the free one. A click picks the joint below it; the fourth begins anew.
function watchPointer() {
  const view = $("view");
  let pressed = null;
  const dragged = (event) => !pressed || Math.hypot(event.clientX - pressed.clientX, event.clientY - pressed.clientY) > 4;
  view.addEventListener("pointerdown", (event) => { pressed = event; });
  view.addEventListener("pointermove", (event) => {
    if (!state.eye || !pressed || !event.buttons || !dragged(event)) return;
    leaveEye();
    view.dispatchEvent(new PointerEvent("pointerdown", pressed)); // the controls were off when it came
  });
  view.addEventListener("pointerup", (event) => {
    if (!dragged(event) && $("skeleton").checked) pick(event);
    pressed = null;
  });
}

// The free view from the eye's place and through its lens, with the image behind the people, so that nothing jumps.
function leaveEye() {
  free.position.set(0, 0, 0);
  controls.target.set(0, 0, -depths.middle);
  controls.update();
  if (frustum.userData.picture) frustum.scale.setScalar((1.15 * depths.farthest) / depths.frustum);
  state.lens = true;
  look(false);
}

function pick(event) {
  const box = $("view").getBoundingClientRect();
  const x = (2 * (event.clientX - box.left)) / box.width - 1, y = 1 - (2 * (event.clientY - box.top)) / box.height;
  const camera = state.eye ? eye : free;
  let best = null, least = 14; // pixels
  for (const { dots } of Object.values(bodies)) {
    if (!dots.visible) continue;
    for (const dot of dots.children) {
      const p = dot.position.clone().project(camera);
      const off = Math.hypot(((p.x - x) * box.width) / 2, ((p.y - y) * box.height) / 2);
      if (off < least) [best, least] = [dot, off];
    }
  }
  state.picked = best === null || state.picked.length === 3 ? [] : state.picked;
  if (best && !state.picked.includes(best)) state.picked.push(best);
  draw();
}

function measure() {
  const picked = state.picked, at = picked.map((dot) => dot.position);
  let text = picked.map((dot) => dot.userData.name).join(" – ");
  if (picked.length === 2) text += `: ${(100 * at[0].distanceTo(at[1])).toFixed(1)} cm`;
  if (picked.length === 3) {
    const [a, b] = [at[0].clone().sub(at[1]), at[2].clone().sub(at[1])];
    text += `: ${((a.angleTo(b) * 180) / Math.PI).toFixed(0)}°`;
  }
  $("measure").textContent = text;
}
