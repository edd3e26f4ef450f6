import assert from 'node:assert/strict';

import { line } from '../lib/loss-document.mjs';
import { allCells, cellName, playCells } from '../lib/loss-matrix.mjs';

export const about = 'Chromium plays through six bad networks (a part of tools/matrix): repair keeps the picture';
export const timeLimitSeconds = 240;

const SECONDS = 30;
/**
 * Of the cells with repair: the least that is shown, and the longest freeze in seconds. 99 % and half a second are owed at 5 %
 * random loss and 80 ms; of the last two docs/loss.md has what they came to in half a minute each.
 */
const REPAIRED = {
  '0%-80ms': { shown: 0.99, freeze: 0 },
  '1%random-80ms': { shown: 0.99, freeze: 0.5 },
  '5%random-80ms': { shown: 0.99, freeze: 0.5 },
  '5%random-80ms-jitter30': { shown: 0.98, freeze: 1 },
  '5%burst-20ms': { shown: 0.97, freeze: 1 },
};
/** Where nothing is repaired the same network leaves next to nothing: what the repair is worth, and that packets are lost. */
const UNREPAIRED = '5%random-80ms-norepair';

export async function run(t) {
  const names = [...Object.keys(REPAIRED), UNREPAIRED];
  const cells = allCells().filter((cell) => names.includes(cellName(cell)));
  assert.equal(cells.length, names.length, 'every name is a cell');
  const { results } = await playCells(t, cells, { seconds: SECONDS, together: cells.length });
  const byName = Object.fromEntries(results.map((result) => [cellName(result), result]));
  for (const [name, result] of Object.entries(byName)) t.measure(name, line(result));
  for (const [name, { shown, freeze }] of Object.entries(REPAIRED)) {
    const result = byName[name];
    assert(result.shown >= shown, `${name}: ${result.shown} of the frames shown`);
    assert(result.longestFreeze <= freeze, `${name}: a freeze of ${result.longestFreeze} s`);
    assert.equal(result.keyframeRequests, 0, `${name}: keyframe requests`);
    assert.equal(result.nacks > 0, result.loss > 0, `${name}: ${result.nacks} NACKs`);
  }
  assert(byName[UNREPAIRED].shown < 0.5, `${UNREPAIRED}: ${byName[UNREPAIRED].shown} of the frames shown`);
}
