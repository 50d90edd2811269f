// Builds dist/: the ES module and its types, and the plain script. `node build.js DIRECTORY` builds elsewhere.

import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const out = process.argv[2] ?? here('dist');
// What pusher-js's own builds ask of a browser is older, but a page with modules has this.
const options = { bundle: true, minify: true, target: 'es2019', charset: 'utf8' };

await build({ ...options, entryPoints: [here('src/index.ts')], format: 'esm', outfile: `${out}/index.js` });
await build({ ...options, entryPoints: [here('src/script.ts')], format: 'iife', outfile: `${out}/recover.js` });
execFileSync(process.execPath, [here('node_modules/typescript/bin/tsc'), '-p', here('.'), '--outDir', out]);
