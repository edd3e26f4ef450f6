// One encoding in several spatial layers (SVC), published by a Chromium page.

import { readFileSync } from 'node:fs';

import { measureFor, until } from './until.mjs';

const WHEEL = readFileSync(new URL('../page/wheel.js', import.meta.url), 'utf8');
const SIMULCAST = readFileSync(new URL('../page/simulcast.js', import.meta.url), 'utf8');

/** What a player asks for by `setHeaderExtensionsToNegotiate`. */
export const DESCRIPTOR = 'https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension';

/** Small enough for two cores that encode it, and decode it again. */
export const SIZE = { width: 640, height: 360, frameRate: 20 };
const BITS = 1_000_000;
/** With all layers. */
const LEAST_BITS = 380_000;

/** Publishes to table `one` and waits until the encoding has its bits. `sent` reads the publisher's statistics. */
export async function publishLayered(t, gateway, { mimeType, scalabilityMode, name }) {
  const browser = await t.chromium({ camera: true });
  const studio = await browser.open(gateway.url('/'));
  await studio.evaluate(WHEEL);
  await studio.evaluate(SIMULCAST);
  const encodings = [{ scalabilityMode, maxBitrate: BITS }];
  await studio.evaluate(([endpoint, options]) => globalThis.interopSimulcast.publish(endpoint, options), [
    gateway.url('/whip/one'),
    { mimeType, ...SIZE, token: gateway.publisherToken, wheel: true, encodings },
  ]);
  const sent = async () => (await studio.evaluate(() => globalThis.interopSimulcast.layers())).single;
  // VP9 gets less than it may have, by the size of its pictures, and the statistics name what the least layer is to have.
  let before = 0;
  const { seconds } = await until('the encoding has its bits', 60, async () => {
    await measureFor(2);
    const single = await sent();
    const grown = (single?.bytesSent ?? 0) - before;
    before = single?.bytesSent ?? 0;
    if (single?.frameHeight !== SIZE.height || grown * 4 < LEAST_BITS) throw new Error(JSON.stringify({ ...single, grown }));
    return true;
  });
  t.measure(`${name}, until the encoding has its bits`, seconds, 's');
  return { studio, sent };
}

/** Closes the publisher's page, and waits until its table is free. */
export async function endStudio(gateway, studio) {
  await studio.close();
  await until('the publisher is gone', 15, async () => (await gateway.metrics()).sum('tableside_table_live', { table: 'one' }) === 0);
}
