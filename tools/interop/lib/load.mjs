// The load generator, tableside-load, as a child.

import assert from 'node:assert/strict';
import { join } from 'node:path';

import { Child } from './process.mjs';
import { LOAD } from './tools.mjs';
import { until } from './until.mjs';

/** Starts it; `options` are its own, what it measures goes to its output as JSON. Killed at the end of the scenario. */
export function startLoad(t, name, options) {
  const child = new Child(LOAD, [...options, '--json', '-'].map(String), join(t.folder, `${name}.log`));
  t.defer(async () => {
    if (!child.ended) await child.end('SIGKILL', 5);
  });
  return child;
}

/** Runs it to its end. @returns what it measured */
export async function load(t, name, options) {
  const child = startLoad(t, name, options);
  const { value } = await until(`${name} is over`, 60, () => child.ended);
  assert.deepEqual(value, { code: 0, signal: null }, child.output());
  return JSON.parse(child.output());
}
