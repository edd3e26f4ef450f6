import assert from 'node:assert/strict';

import { assertSounds, between } from '../lib/playback.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = 'Chromium publishes in every codec that it encodes, another Chromium plays and joins later';

/** @type {{ table: string, name: string, options: Record<string, unknown> }[]} */
const STREAMS = [
  { table: 'vp8', name: 'VP8', options: { video: 'video/VP8' } },
  { table: 'vp9', name: 'VP9', options: { video: 'video/VP9' } },
  { table: 'vp9-svc', name: 'VP9', options: { video: 'video/VP9', scalabilityMode: 'L2T2' } },
  { table: 'av1', name: 'AV1', options: { video: 'video/AV1' } },
  { table: 'av1-svc', name: 'AV1', options: { video: 'video/AV1', scalabilityMode: 'L2T1' } },
  { table: 'h264', name: 'H264', options: { video: 'video/H264' } },
];

export async function run(t) {
  const gateway = await t.demo();
  const studio = await (await t.chromium({ camera: true })).openStudio(gateway.url('/'));
  const home = await t.chromium();
  for (const { table, name, options } of STREAMS) {
    const publisher = await studio.evaluate(([url, how]) => globalThis.interopStudio.publish(url, how), [gateway.url(`/whip/${table}`), options]);
    const sent = () => studio.evaluate((number) => globalThis.interopStudio.sent(number, 'video'), publisher);
    const watching = await home.openPeers(gateway.url('/'));
    await until(`${table} is live`, 15, async () => (await gateway.metrics()).sum('tableside_table_live', { table }) === 1);

    const first = await watch(watching, gateway, table);
    const stats = () => watching.evaluate((peer) => globalThis.interop.stats(peer), first.peer);
    const [before, sentBefore] = [await stats(), await sent()];
    await measureFor(4);
    const [after, sentAfter] = [await stats(), await sent()];
    const played = between(before, after);
    const encoded = sentAfter.framesEncoded - sentBefore.framesEncoded;
    t.measure(`${table}, ${after.video.codec}`, `${after.video.frameWidth}x${after.video.frameHeight}, ${played.frames} frames of ${encoded}`);
    assert.equal(after.video.codec, `video/${name}`);
    assert.equal(sentAfter.codec, `video/${name}`);
    assert(encoded > 20, `the encoder made ${encoded} frames in 4 s`);
    assert(played.frames > 0.8 * encoded, `${played.frames} of ${encoded} frames were decoded`);
    assertSounds(played);

    const second = await watch(watching, gateway, table);
    t.measure(`${table}, a later joiner's first frame`, second.joinMs, 'ms');
    await studio.evaluate((number) => globalThis.interopStudio.stop(number), publisher);
    await watching.close();
  }
}

function watch(page, gateway, table) {
  return page.evaluate((url) => globalThis.interop.watch(url), gateway.url(`/whep/${table}`));
}
