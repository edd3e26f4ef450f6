import assert from 'node:assert/strict';

import { PLAYERS, PUBLISHERS, choose, playMatrix, surprises } from '../lib/matrix.mjs';

export const about = `${PUBLISHERS.length} publishers × ${PLAYERS.length} players: each pair plays, or is refused for want of a codec`;
export const timeLimitSeconds = 600;

export async function run(t) {
  const { cells } = await playMatrix(t, choose([]));
  assert.equal(cells.length, PUBLISHERS.length * PLAYERS.length);
  assert.deepEqual(surprises(cells), []);
}
