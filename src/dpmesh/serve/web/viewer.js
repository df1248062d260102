// Inside the viewer's frame: the numbers come from the page around it; then page.js shows them.
"use strict";

const result = window.parent !== window && window.parent.dpmeshResult;
if (result) {
  document.getElementById("data").textContent = JSON.stringify(result.page);
  document.getElementById("glb").textContent = result.glb;
  const script = document.createElement("script");
  script.src = "/static/page.js";
  document.body.append(script);
} else {
  const error = document.getElementById("error");
  error.textContent = "There is no result yet: choose an image on the first page.";
  error.hidden = false;
}
