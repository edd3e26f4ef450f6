import assert from 'node:assert/strict';

import { load } from '../lib/load.mjs';
import { until } from '../lib/until.mjs';

export const about = '100 players join within a second, where no keyframe is kept for them: all get the picture, the camera is asked for a keyframe twice at most';

const TABLE = 'joiners';
const JOINS = 100;
const SECONDS = 4;
const MOST_REQUESTS = 2;

export async function run(t) {
  const gateway = await t.demo();
  const studio = await t.chromium({ camera: true });
  const camera = await studio.open(gateway.url(`/publish/${TABLE}`));
  // What the generator plays. And without sound whoever gets anything gets the picture.
  await camera.getByLabel('Video codec').selectOption('VP8');
  await camera.getByLabel('Microphone').selectOption('none');
  await camera.getByRole('button', { name: 'Go on air' }).click();
  const gauge = async (name) => (await gateway.metrics()).sum(`tableside_${name}`, { table: TABLE });
  await until('the table is live', 15, async () => (await gauge('table_live')) === 1);
  const { seconds } = await until('the last keyframe is no longer kept', 60, async () => (await gauge('table_gop_cached')) === 0);
  t.measure('until the last keyframe is no longer kept', seconds, 's');

  const before = await requests(camera);
  const options = ['--burst', JOINS, '--burst-rate', JOINS, '--seconds', SECONDS, '--verify', 0];
  const { players } = await load(t, TABLE, ['--whep', gateway.url(`/whep/${TABLE}`), ...options]);
  const asked = (await requests(camera)) - before;

  const [, joining] = players;
  const { answered_ms: answered, first_packet_ms: first } = joining;
  t.measure('keyframe requests that reached the camera', asked);
  t.measure('answered, p50 and p99', `${answered.p50} and ${answered.p99} ms`);
  t.measure('first packet, p50 and p99', `${first.p50} and ${first.p99} ms`);
  assert.deepEqual(joining.failures, {});
  assert.deepEqual([joining.requested, joining.connected, joining.silent], [JOINS, JOINS, 0], 'asked, connected, without a picture');
  assert(asked <= MOST_REQUESTS, `${asked} keyframe requests, not at most ${MOST_REQUESTS}`);
}

/** PLI and FIR that the page's connection has received. */
function requests(page) {
  return page.evaluate(async () => {
    const report = [...(await globalThis.interopRecorder.connections.at(-1).getStats()).values()];
    const sent = report.filter(({ type, kind }) => type === 'outbound-rtp' && kind === 'video');
    return sent.reduce((sum, { pliCount = 0, firCount = 0 }) => sum + pliCount + firCount, 0);
  });
}
