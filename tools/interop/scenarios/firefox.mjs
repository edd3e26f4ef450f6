import assert from 'node:assert/strict';

import { PlayerPage } from '../lib/player-page.mjs';
import { between, report } from '../lib/playback.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = 'Firefox plays the VP8 table, and says clearly why it cannot play the H.264 one';

/** Software decoding and drawing beside everything else on two cores: most of the frames, not all. */
const LEAST_FPS = 24;

export async function run(t) {
  const gateway = await t.demo();
  const firefox = await t.firefox();

  const vp8 = new PlayerPage(await firefox.open(gateway.url('/play/demo-vp8')));
  await until('frames are decoded', 20, async () => (await vp8.latest()).video?.framesDecoded > 0);
  const before = await vp8.latest();
  await measureFor(10);
  const after = await vp8.latest();
  const played = between(before, after);
  report(t, 'Firefox', played);
  t.measure('audio samples', after.audio?.totalSamplesReceived ?? 'none');
  assert.equal(after.video.codec, 'video/VP8');
  assert(played.framesPerSecond >= LEAST_FPS, `${played.framesPerSecond} frames per second`);
  assert(played.audioSeconds > 0 || after.audio?.packetsReceived > before.audio?.packetsReceived, 'no audio arrives');
  assert.deepEqual(await gateway.handshakes(), { '1.3 aead_aes_128_gcm': 1 }, 'DTLS version and SRTP profile');
  await vp8.page.close();

  const h264 = new PlayerPage(await firefox.open(gateway.url('/play/demo')));
  const { value } = await until('the page says why it cannot play', 15, async () => {
    const text = await h264.text();
    return /H\.?264/.test(text) && /browser/i.test(text) && text;
  });
  t.measure('the message', /[^.]*H\.?264[^.]*\./.exec(value)?.[0]?.trim() ?? value.slice(0, 200));
  await gateway.sessionsAre({ players: 0 }, 40);
}
