// Finds the scenarios, runs those asked for one after the other, and ends with "N passed, N failed".

import { readdirSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { Scenario, runScenario } from './lib/scenario.mjs';
import { missingTools } from './lib/tools.mjs';

const folder = fileURLToPath(new URL('scenarios/', import.meta.url));
const { values: options } = parseArgs({
  options: {
    list: { type: 'boolean', default: false },
    only: { type: 'string', multiple: true, default: [] },
    binary: { type: 'string', default: Scenario.defaultBinary },
  },
});

const all = readdirSync(folder).filter((file) => file.endsWith('.mjs')).map((file) => basename(file, '.mjs')).sort();
const unknown = options.only.filter((name) => !all.includes(name));
if (unknown.length > 0) stop(`no such scenario: ${unknown.join(', ')}; there are ${all.join(', ')}`);
const named = options.only.length > 0 || options.list;
/** Scenarios that want a machine for themselves say why they run only by name. */
const leftOut = [];
const chosen = [];
for (const name of options.only.length > 0 ? all.filter((one) => options.only.includes(one)) : all) {
  const { byNameOnly } = await load(name);
  if (byNameOnly && !named) leftOut.push(`${name} (${byNameOnly})`);
  else chosen.push(name);
}

if (options.list) {
  for (const name of chosen) console.log(`${name.padEnd(24)} ${(await load(name)).about}`);
  process.exit(0);
}
const missing = missingTools(options.binary);
if (missing.length > 0) stop(`missing: ${missing.join('; ')}`);

const failures = [];
for (const name of chosen) {
  const error = await runScenario(name, await load(name), options.binary);
  if (error) failures.push(`FAIL ${name}: ${String(error.message ?? error).split('\n')[0]}`);
}
// Once more at the end: what is kept of a long log is often its end.
if (failures.length > 0) console.log(`\n${failures.join('\n')}`);
if (leftOut.length > 0) console.log(`\nleft out, run by --only: ${leftOut.join(', ')}`);
console.log(`\n${chosen.length - failures.length} passed, ${failures.length} failed`);
process.exit(failures.length === 0 ? 0 : 1);

async function load(name) {
  return import(new URL(`scenarios/${name}.mjs`, import.meta.url));
}

function stop(message) {
  console.error(`tools/interop/run: ${message}`);
  process.exit(2);
}
