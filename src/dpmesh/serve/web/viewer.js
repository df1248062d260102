// Inside the viewer's frame: the numbers come from the page around it; then page.js shows them.
"use strict";

const result = window.parent !== window && window.parent.dpmeshResult;
if (result) {
  document.getElementById("data").textContent = JSON.stringify(result.page);
  document.getElementById("glb").textContent = result.glb;
  for (const name of ["pointer", "page"]) {
    const script = Object.assign(document.createElement("script"), { src: `/static/${name}.js`, async: false });
    document.body.append(script); // in this order
  }
} else {
  const error = document.getElementById("error");
  error.textContent = "There is no result yet: choose an image on the first page.";
  error.hidden = false;
}
