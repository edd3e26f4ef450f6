import assert from 'node:assert/strict';

import { assertSounds, between, isLevel } from '../lib/playback.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = 'Chromium publishes in every codec that it encodes, with layers, the dependency descriptor and RED; another plays';

/** Of the fake camera. */
const FPS = 30;
const DESCRIPTOR = 'https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension';

/** @type {{ table: string, name: string, layers?: number, options: Record<string, unknown> }[]} */
const STREAMS = [
  { table: 'vp8', name: 'VP8', options: { video: 'video/VP8' } },
  { table: 'vp9', name: 'VP9', options: { video: 'video/VP9' } },
  { table: 'vp9-layers', name: 'VP9', layers: 2, options: { video: 'video/VP9', scalabilityMode: 'L2T2' } },
  { table: 'av1', name: 'AV1', options: { video: 'video/AV1' } },
  { table: 'av1-descriptor', name: 'AV1', layers: 2, options: { video: 'video/AV1', scalabilityMode: 'L2T1', dependencyDescriptor: true } },
  { table: 'h264-red', name: 'H264', options: { video: 'video/H264', audio: 'audio/red' } },
];

export async function run(t) {
  const gateway = await t.demo();
  const studio = await (await t.chromium({ camera: true })).openStudio(gateway.url('/'));
  const home = await t.chromium();
  for (const { table, name, layers = 1, options } of STREAMS) {
    const publisher = await studio.evaluate(([url, how]) => globalThis.interopStudio.publish(url, how), [gateway.url(`/whip/${table}`), options]);
    const sent = (kind) => studio.evaluate(([number, of]) => globalThis.interopStudio.sent(number, of), [publisher, kind]);
    const watching = await home.openPeers(gateway.url('/'));
    await until(`${table} is live`, 15, async () => (await gateway.metrics()).sum('tableside_table_live', { table }) === 1);

    const extension = options.dependencyDescriptor ? DESCRIPTOR : undefined;
    const first = await watch(watching, gateway, table, { extension });
    const stats = (peer) => watching.evaluate((number) => globalThis.interop.stats(number), peer);
    // While a joiner catches up it decodes more than is encoded, and its sound is stretched to fit.
    await until(`the player of ${table} is level`, 15, isLevel(() => stats(first.peer), FPS));
    const [before, sentBefore] = [await stats(first.peer), await sent('video')];
    await measureFor(4);
    const [after, sentAfter] = [await stats(first.peer), await sent('video')];
    const played = between(before, after);
    // The browser counts each spatial layer of a picture, a player the picture.
    const encoded = (sentAfter.framesEncoded - sentBefore.framesEncoded) / layers;
    t.measure(`${table}, ${after.video.codec}`, `${after.video.frameWidth}x${after.video.frameHeight}, ${played.frames} frames of ${encoded}`);
    assert.equal(after.video.codec, `video/${name}`);
    assert.equal(sentAfter.codec, `video/${name}`);
    assert(encoded > 20, `the encoder made ${encoded} frames in 4 s`);
    assert(played.frames > 0.8 * encoded, `${played.frames} of ${encoded} frames were decoded`);
    assertSounds(played);
    assert.equal(played.packetsLost, 0, 'packets lost');
    if (extension) assert((await answer(watching, first.peer)).includes(extension), 'the descriptor is in the answer');

    const second = await watch(watching, gateway, table, { extension, red: false });
    t.measure(`${table}, a later joiner's first frame`, second.joinMs, 'ms');
    if (options.audio === 'audio/red') await compareRed(t, watching, stats, first.peer, second.peer);
    await studio.evaluate((number) => globalThis.interopStudio.stop(number), publisher);
    await watching.close();
  }
}

/** The first player negotiated RED, the second did not: the same sound, in packets of different size. */
async function compareRed(t, page, stats, withRed, withoutRed) {
  assert((await answer(page, withRed)).includes('red/48000/2'), 'RED is in the answer of who offered it');
  assert(!(await answer(page, withoutRed)).includes('red/48000'), 'and not in that of who did not');
  // Who has just joined may have had a picture and no sound yet.
  const both = async () => [await stats(withRed), await stats(withoutRed)];
  const { value: before } = await until('both have sound', 5, async () => {
    const read = await both();
    return read.every(({ audio }) => audio?.packetsReceived > 0) && read;
  });
  await measureFor(3);
  const after = await both();
  const sizes = [0, 1].map((n) => {
    const grown = (key) => after[n].audio[key] - before[n].audio[key];
    assert(between(before[n], after[n]).audioEnergy > 0, 'the sound is silence');
    return grown('bytesReceived') / grown('packetsReceived');
  });
  t.measure('bytes of sound a packet, with RED and without', sizes.map((size) => Math.round(size)).join(' and '));
  assert(sizes[0] > 1.5 * sizes[1], `packets with RED have ${sizes[0]} bytes, those without ${sizes[1]}`);
}

function answer(page, peer) {
  return page.evaluate((number) => globalThis.interop.answer(number), peer);
}

function watch(page, gateway, table, options) {
  return page.evaluate(([url, how]) => globalThis.interop.watch(url, how), [gateway.url(`/whep/${table}`), options]);
}
