import assert from 'node:assert/strict';
import { join } from 'node:path';

import { httpBetService, startBetService } from '../lib/bets.mjs';
import { FRAME_CLOCK } from '../lib/chromium.mjs';
import { freePorts } from '../lib/gateway.mjs';
import { PlayerPage } from '../lib/player-page.mjs';
import { percentile } from '../lib/statistics.mjs';
import { studioBehindNetsim } from '../lib/studio.mjs';
import { until } from '../lib/until.mjs';

export const about = 'a round event comes with the frame that shows its moment: the publisher burns the time of day into its picture, and the player reads it as each event is told';
export const timeLimitSeconds = 120;

const EVENTS = 9;
/** Of the table. */
const FRAME_MS = 1000 / 30;
/** Of the clock in the picture, which goes round once in 1.2 s. */
const TICK_MS = 4;
/** How long packets are on their way from the publisher. */
const STUDIO_MS = 80;

export async function run(t) {
  const [port] = await freePorts(1);
  await startBetService(t, 'http', String(port), join(t.folder, 'books.jsonl'));
  const { gateway, netsim } = await studioBehindNetsim(t, { codec: 'none', sections: [httpBetService(port)] });
  const camera = await t.chromium({ camera: true });
  const dealer = await camera.openStudio(gateway.url('/'));
  await dealer.evaluate(FRAME_CLOCK);
  await dealer.evaluate(publishClock, { endpoint: gateway.url('/whip/one'), token: gateway.publisherToken, tickMs: TICK_MS });
  await until('its link is there', 10, async () => (await netsim.clients()).length > 0);
  // A studio is further away than the bet service: an event that comes after its frame can but be told at once.
  for (const { client } of await netsim.clients()) await netsim.command(`client ${client} both delay=${STUDIO_MS}ms`);
  const browser = await t.chromium();
  const page = await browser.open(gateway.page('one'));
  await page.evaluate(FRAME_CLOCK);
  const player = new PlayerPage(page);
  await until('the page is live', 20, async () => (await player.state()) === 'live');
  await page.evaluate(() => {
    window.told = [];
    const since = Date.now();
    const video = document.querySelector('video');
    const read = () => globalThis.interopClock.read(video);
    // What each frame shows, the last ones: an event's frame may be written here before the event is told, or after.
    const shown = [];
    const note = () => {
      shown.push(read());
      shown.splice(0, shown.length - 3);
      video.requestVideoFrameCallback(note);
    };
    video.requestVideoFrameCallback(note);
    window.tableside.addEventListener('round', ({ detail }) => {
      // Of a round that had begun before.
      if (detail.message.captureTs < since) return;
      const tick = read();
      window.told.push({ ...detail, tick, before: shown.findLast((other) => other !== tick), at: Date.now() });
    });
  });
  const told = () => page.evaluate(() => window.told);
  await until(`${EVENTS} events`, 60, async () => (await told()).length >= EVENTS);

  const events = await told();
  const errors = events.map(({ message, tick }) => {
    assert.notEqual(tick, undefined, 'the clock in the picture is legible');
    assert(Number.isInteger(message.rtpTs), 'it names its frame');
    // To the middle of the tick.
    return behind(TICK_MS * tick + TICK_MS / 2, message.captureTs);
  });
  const ages = events.map(({ message, at }) => at - message.captureTs);
  t.measure('the moment on screen after the event, least and most', [0, 100].map((p) => percentile(errors, p).toFixed(0)).join(', '), 'ms');
  t.measure('told after it happened, median', percentile(ages, 50), 'ms');
  // What happened right after a frame is seen in the next, a whole frame later: where the dealer's browser has left one out, that
  // is longer. The clock is read to half a tick.
  for (const [n, error] of errors.entries()) {
    const { message, tick, before } = events[n];
    const frame = Math.max(FRAME_MS, behind(TICK_MS * tick, TICK_MS * before));
    assert(error <= frame + TICK_MS / 2 && error >= -FRAME_MS, `${message.type}: ${error} ms off, and the frame before it was ${frame} ms earlier`);
  }
}

/** How far one time of day is after another, the shorter way round the clock. */
function behind(shown, wanted) {
  const round = 300 * TICK_MS;
  return ((((shown - wanted) % round) + 1.5 * round) % round) - round / 2;
}

/** In the studio page: publishes a canvas in which the time of day stands, drawn for each frame. */
async function publishClock({ endpoint, token, tickMs }) {
  const canvas = Object.assign(document.createElement('canvas'), { width: 1280, height: 720 });
  const context = canvas.getContext('2d');
  const clock = globalThis.interopClock;
  // By the time of the frame, which is what the browser says it was captured at.
  const draw = (now) => {
    context.fillStyle = '#147';
    context.fillRect(0, 0, canvas.width, canvas.height);
    clock.draw(context, Math.floor((performance.timeOrigin + now) / tickMs) % clock.FRAMES);
    requestAnimationFrame(draw);
  };
  requestAnimationFrame(draw);
  const [picture] = canvas.captureStream(30).getVideoTracks();
  const [silence] = new AudioContext().createMediaStreamDestination().stream.getAudioTracks();
  navigator.mediaDevices.getUserMedia = async () => new MediaStream([picture, silence]);
  await globalThis.interopStudio.publish(endpoint, { token });
}
