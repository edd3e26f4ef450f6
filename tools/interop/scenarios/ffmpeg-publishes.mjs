import assert from 'node:assert/strict';

import { assertSounds, between, isLevel, report } from '../lib/playback.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = 'FFmpeg publishes in both DTLS roles; Chromium decodes 95 % of the frames over 20 s, no freeze, no PLI storm';

const SECONDS = 20;
const FPS = 30;
const LEAST_SHARE = 0.95;
/** One for the join and one to spare: a keyframe comes every two seconds in any case. */
const MOST_KEYFRAME_REQUESTS = 2;

export async function run(t) {
  const gateway = await t.demo();
  const browser = await t.chromium();
  for (const dtls of ['passive', 'active']) await published(t, gateway, browser, dtls);
  const expected = { '1.2 aes128_cm_sha1_80': 2, '1.2 aead_aes_256_gcm': 2 };
  assert.deepEqual(await gateway.handshakes(), expected, 'FFmpeg has one SRTP profile, Chromium gets a better one');
}

async function published(t, gateway, browser, dtls) {
  const table = `ffmpeg-${dtls}`;
  const publisher = t.ffmpeg(gateway.url(`/whip/${table}`), { name: table, dtls });
  await until(`${table} is live`, 10, async () => {
    if (publisher.child.ended) throw new Error(`FFmpeg ended: ${publisher.child.output().split('\n').slice(-5).join(' | ')}`);
    return (await gateway.metrics()).sum('tableside_table_live', { table }) === 1;
  });

  const page = await browser.openPeers(gateway.url('/'));
  const { peer, joinMs } = await page.evaluate((url) => globalThis.interop.watch(url), gateway.url(`/whep/${table}`));
  t.measure(`${dtls}: POST to first frame`, joinMs, 'ms');
  const statistics = () => page.evaluate((number) => globalThis.interop.stats(number), peer);
  await until('the player is level with the table', 10, isLevel(statistics, FPS));
  const read = async () => ({
    sent: publisher.framesSent,
    played: await statistics(),
    asked: (await gateway.metrics()).sum('tableside_keyframe_requests_total', { table, direction: 'sent' }),
  });

  const before = await read();
  await measureFor(SECONDS);
  const after = await read();
  const played = between(before.played, after.played);
  const sent = after.sent - before.sent;
  report(t, dtls, played);
  t.measure(`${dtls}: frames sent and decoded`, `${sent} and ${played.frames}`);
  t.measure(`${dtls}: keyframe requests to the publisher`, after.asked);
  assert(sent > SECONDS * 25, `FFmpeg sent ${sent} frames only: the machine cannot keep up, this run says nothing`);
  assert(played.frames >= LEAST_SHARE * sent, `${played.frames} of ${sent} frames were decoded`);
  assert.equal(played.freezes, 0, 'freezes');
  assertSounds(played);
  assert(after.played.video.pliCount <= MOST_KEYFRAME_REQUESTS, `the player asked ${after.played.video.pliCount} times`);
  assert(after.asked <= MOST_KEYFRAME_REQUESTS, `the publisher was asked ${after.asked} times`);

  await publisher.leave();
  await page.close();
  await gateway.sessionsAre({ players: 0, publishers: 0 }, 40);
}
