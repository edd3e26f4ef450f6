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
  const receivedBefore = await received(gateway);
  await measureFor(10);
  const after = await player.latest();
  const reports = ((await received(gateway)) - receivedBefore) / between(before, after).seconds;
  const played = between(before, after);
  report(t, 'Chromium', played);
  t.measure('codecs', `${after.video.codec}, ${after.audio.codec}`);
  t.measure('datagrams from Chromium', reports, 'a second');
  // Feedback four times a second, as the answer asks (`b=TIAS`), receiver reports, consent and the page's own messages. It
  // would be 18 or more, did Chromium not care.
  assert(reports > 3 && reports < 10, `${reports} datagrams a second from a player`);
  assertMoves(played, { fps: 30 });
  assertSounds(played);
  assert.deepEqual(await gateway.handshakes(), { '1.2 aead_aes_256_gcm': 1 }, 'DTLS version and SRTP profile');
  assert.equal(after.made, 1, 'the page made one connection and kept it');
  assert.equal(after.video.codec, 'video/H264');
  assert.deepEqual([after.video.frameWidth, after.video.frameHeight], [1280, 720]);
  assert.equal(await player.state(), 'live');
  assert.deepEqual(browser.errors, [], 'the page logged errors');
}

/** Datagrams that came to the media ports. The demo's clip is published within the gateway: they are the players'. */
async function received(gateway) {
  return (await gateway.metrics()).sum('tableside_datagrams_total', { direction: 'received' });
}
