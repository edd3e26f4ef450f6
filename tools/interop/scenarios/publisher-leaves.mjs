import assert from 'node:assert/strict';

import { PlayerPage } from '../lib/player-page.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = 'a publisher leaves: the player page says so within 2 s, and plays on by itself when it returns in time';

const TOLD_WITHIN = 2;
const RESUMES_WITHIN = 5;
const TABLE = 'leaving';

export async function run(t) {
  const gateway = await t.demo();
  const browser = await t.chromium();
  const endpoint = gateway.url(`/whip/${TABLE}`);

  let publisher = await publish(t, gateway, endpoint, 'ffmpeg-1');
  const player = new PlayerPage(await browser.open(gateway.url(`/play/${TABLE}`)));
  await until('the player plays', 10, async () => (await player.state()) === 'live' && (await frames(player)) > 30);

  // By the book, with DELETE; and in an instant, as after a power cut.
  for (const [how, next] of [['leave', 'ffmpeg-2'], ['vanish', 'ffmpeg-3']]) {
    const gone = publisher[how]();
    const { seconds: told } = await until(`the page says that the table is paused (${how})`, 10, async () => {
      return (await player.state()) === 'paused';
    });
    await gone;
    t.measure(`${how}: until the page says so`, told, 's');
    t.measure(`${how}: what it says`, (await player.text()).slice(0, 160));
    assert(told <= TOLD_WITHIN, `the player learned of it after ${told} s`);

    await measureFor(2);
    const before = await frames(player);
    publisher = await publish(t, gateway, endpoint, next);
    const { seconds: resumed } = await until(`the player plays on (${how})`, RESUMES_WITHIN, async () => {
      return (await player.state()) === 'live' && (await frames(player)) > before + 15;
    });
    t.measure(`${how}: from live again to playing`, resumed, 's');
  }
  assert.equal((await player.latest()).state, 'connected');
}

/** Publishes as a studio's encoder does: one that is refused because its own dead session still holds the table tries again. */
async function publish(t, gateway, endpoint, name) {
  let publisher;
  const { seconds } = await until(`${name} publishes`, 30, async () => {
    if (!publisher || publisher.child.ended) publisher = t.ffmpeg(endpoint, { name });
    const metrics = await gateway.metrics();
    return publisher.framesSent > 0 && metrics.sum('tableside_table_live', { table: TABLE }) === 1;
  });
  t.measure(`${name}: until live`, seconds, 's');
  return publisher;
}

async function frames(player) {
  return (await player.latest()).video?.framesDecoded ?? 0;
}
