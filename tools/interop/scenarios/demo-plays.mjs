import assert from 'node:assert/strict';

import { assertMoves, assertSounds, between, report } from '../lib/playback.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = 'the player page of the demo shows the clip with sound, 30 frames a second, no freeze';

export async function run(t) {
  const gateway = await t.demo();
  const browser = await t.chromium();
  const page = await browser.open(gateway.url('/play/demo'));
  const latest = () => page.evaluate(() => globalThis.interopRecorder.latest());

  const { seconds } = await until('frames are decoded and sound is heard', 10, async () => {
    const { video, audio } = await latest();
    return video?.framesDecoded > 0 && audio?.totalAudioEnergy > 0;
  });
  t.measure('until picture and sound', seconds, 's');

  const before = await latest();
  await measureFor(10);
  const after = await latest();
  const played = between(before, after);
  report(t, 'Chromium', played);
  t.measure('codecs', `${after.video.codec}, ${after.audio.codec}`);
  assertMoves(played, { fps: 30 });
  assertSounds(played);
  assert.equal(after.made, 1, 'the page made one connection and kept it');
  assert.equal(after.video.codec, 'video/H264');
  assert.deepEqual([after.video.frameWidth, after.video.frameHeight], [1280, 720]);
  assert.deepEqual(browser.errors, [], 'the page logged errors');
}
