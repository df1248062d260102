// The page at /: an image goes to /v1/predict; the answer is shown by the viewer (viewer.js) and saved from here.
"use strict";

const $ = (id) => document.getElementById(id);
const PAGE = "application/vnd.dpmesh.page+json";
const MOST_TRIES = 20;
let token = "", last = null, running = null, links = [];

const show = (id, on) => { $(id).hidden = !on; };

function fail(text) {
  $("error").textContent = text;
  show("error", true);
}

function wait(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal.addEventListener("abort", () => { clearTimeout(timer); reject(new DOMException("", "AbortError")); });
  });
}

// The answer to an image; a busy server is asked again when it says so.
async function ask(file, signal) {
  for (let tries = 1; ; tries += 1) {
    $("status").textContent = "Detecting people, predicting their bodies…";
    const body = new FormData();
    body.append("image", file, file.name || "image");
    const headers = { Accept: PAGE };
    if (token) headers.Authorization = `Bearer ${token}`;
    const answer = await fetch("/v1/predict", { method: "POST", body, headers, signal });
    if (answer.status !== 429 || tries === MOST_TRIES) return answer;
    const seconds = Number(answer.headers.get("Retry-After")) || 2;
    $("status").textContent = `The server is busy. Next try in ${seconds} s.`;
    await wait(seconds, signal);
  }
}

async function predict(file) {
  if (!file) return;
  if (running) running.abort();
  const own = running = new AbortController();
  last = file;
  ["error", "access", "result"].forEach((id) => show(id, false));
  show("progress", true);
  try {
    const answer = await ask(file, own.signal);
    const content = await answer.json().catch(() => ({ error: `The server answered ${answer.status}.` }));
    if (answer.status === 401) { show("access", true); $("token").focus(); }
    else if (!answer.ok) fail(content.error);
    else present(content, file);
  } catch (error) {
    if (error.name !== "AbortError") fail("The server cannot be reached.");
  } finally {
    if (running === own) { running = null; show("progress", false); }
  }
}

function present(content, file) {
  const people = content.scene.people.length;
  const notes = content.scene.notes.join("; ");
  const count = people === 1 ? "1 person" : `${people} people`;
  $("summary").textContent = `${file.name || "Image"}: ${people ? count : "nobody was detected"}${notes ? ` (${notes})` : ""}`;
  $("drop").classList.add("small");
  $("invite").textContent = "Another image:";
  $("invite").classList.remove("mouse");
  show("result", true);
  // viewer.js reads this; the frame is of the same origin.
  window.dpmeshResult = { page: content.page, glb: content.glb };
  $("viewer").contentWindow.location.replace("/viewer");
  offer(content, (file.name || "image").replace(/\.[^.]*$/, "") || "image");
}

function offer(content, stem) {
  links.forEach(URL.revokeObjectURL);
  links = [];
  const add = (label, name, parts, type) => {
    const href = URL.createObjectURL(new Blob(parts, { type }));
    links.push(href);
    const link = Object.assign(document.createElement("a"), { href, download: name, textContent: label });
    link.className = "button";
    $("downloads").append(link);
  };
  $("downloads").replaceChildren();
  const glb = Uint8Array.from(atob(content.glb), (c) => c.charCodeAt(0));
  add("GLB", `${stem}.glb`, [glb], "model/gltf-binary");
  content.bvh.forEach((text, i) => {
    const one = content.bvh.length === 1;
    add(one ? "BVH" : `BVH, person ${i}`, one ? `${stem}.bvh` : `${stem}_person_${i}.bvh`, [text], "text/plain");
  });
  add("JSON", `${stem}.json`, [JSON.stringify(content.scene, null, 1)], "application/json");
}

for (const id of ["file", "shoot"]) {
  $(id).addEventListener("change", (event) => { predict(event.target.files[0]); event.target.value = ""; });
}
$("cancel").addEventListener("click", () => running && running.abort());
$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  predict(last);
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  predict(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => predict(event.clipboardData.files[0]));
