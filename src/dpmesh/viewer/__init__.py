"""Results in the browser: `dpmesh view` (viser). Pages without a server are in dpmesh/page."""
