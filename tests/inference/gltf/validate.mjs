// Khronos' glTF validator: its reports on the files named, as a JSON list on standard output.
import { readFileSync } from "node:fs";
import validator from "gltf-validator";

const reports = [];
for (const path of process.argv.slice(2)) {
  reports.push(await validator.validateBytes(new Uint8Array(readFileSync(path))));
}
console.log(JSON.stringify(reports));
