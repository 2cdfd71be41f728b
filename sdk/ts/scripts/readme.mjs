// Takes the examples out of README.md, one file each, so that the compiler can say whether they are true.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const blocks = [...readFileSync(at("../README.md"), "utf8").matchAll(/^```ts\n(.*?)^```$/gms)];
if (blocks.length === 0) throw new Error("no examples in README.md");
rmSync(at("../.readme"), { recursive: true, force: true });
mkdirSync(at("../.readme"));
for (const [i, [, text]] of blocks.entries()) writeFileSync(at(`../.readme/example-${i + 1}.ts`), text);
