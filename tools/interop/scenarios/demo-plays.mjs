import assert from 'node:assert/strict';

import { PlayerPage } from '../lib/player-page.mjs';
import { assertMoves, assertSounds, between, isLevel, report } from '../lib/playback.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = 'the player page of the demo shows the clip with sound, 30 frames a second, no freeze';

export async function run(t) {
  const gateway = await t.demo();
  const browser = await t.chromium();
  const player = new PlayerPage(await browser.open(gateway.url('/play/demo')));
  const { seconds } = await until('the page is live', 10, async () => (await player.state()) === 'live');
  t.measure('until the page is live', seconds, 's');
  await player.turnSoundOn();
  await until('sound is heard', 5, async () => {
    return (await player.isAudible()) && (await player.latest()).audio?.totalAudioEnergy > 0;
  });

  await until('the player is level with the table', 10, isLevel(() => player.latest(), 30));
  const before = await player.latest();
  await measureFor(10);
  const after = await player.latest();
  const played = between(before, after);
  report(t, 'Chromium', played);
  t.measure('codecs', `${after.video.codec}, ${after.audio.codec}`);
  assertMoves(played, { fps: 30 });
  assertSounds(played);
  assert.deepEqual(await gateway.handshakes(), { '1.2 aead_aes_256_gcm': 1 }, 'DTLS version and SRTP profile');
  assert.equal(after.made, 1, 'the page made one connection and kept it');
  assert.equal(after.video.codec, 'video/H264');
  assert.deepEqual([after.video.frameWidth, after.video.frameHeight], [1280, 720]);
  assert.equal(await player.state(), 'live');
  assert.deepEqual(browser.errors, [], 'the page logged errors');
}
