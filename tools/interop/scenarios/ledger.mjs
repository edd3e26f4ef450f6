import assert from 'node:assert/strict';

import { PlayerPage } from '../lib/player-page.mjs';
import { Processor } from '../lib/processor.mjs';
import { percentile } from '../lib/statistics.mjs';
import { studioBehindNetsim } from '../lib/studio.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = 'frames are lost on the way in, on the way out and in a slow decoder: the ledger has 95 % of them at the right cause';
/** Anything else that runs beside it changes what it measures. */
export const byNameOnly = 'a browser is made slow by a CPU control group';
export const timeLimitSeconds = 480;

/** Enough for a decoder to be slow at. */
const PICTURE = { size: '1280x720', fps: 30, video: '1500k', audio: '32k' };
const CAUSES = ['ingest_loss', 'relay_loss', 'layer_switch', 'congestion', 'node_queue', 'node_overload', 'network', 'decoder', 'unknown'];
/** Of the frames lost, at the cause that was made … */
const LEAST_SHARE = 0.95;
/** … and of the frames sent, at none. */
const MOST_UNKNOWN = 0.01;
/** The ledger has as many as are lost, but for so many of them, or for what two readings may be apart by for each player. */
const [MOST_OFF, UNEVEN] = [0.05, 4];
/** Fewer would say nothing. */
const LEAST_LOST = 150;
/** Of one core, for all of a browser: from more than it needs to less than its decoder needs, whatever the machine. */
const SHARES = [0.32, 0.24, 0.16, 0.12, 0.08, 0.06, 0.04, 0.03];

export async function run(t) {
  const { gateway, netsim } = await studioBehindNetsim(t, { codec: 'none' });
  const publisher = t.ffmpeg(gateway.url('/whip/one'), { token: gateway.publisherToken, picture: PICTURE });
  await until('the table is live', 15, async () => (await gateway.metrics()).sum('tableside_table_live', { table: 'one' }) === 1);
  const studio = (await netsim.clients()).map(({ client }) => client);
  const processor = Processor.make(t);
  const pages = [];
  for (const options of [{}, { processor }]) {
    const browser = await t.chromium(options);
    pages.push(new PlayerPage(await browser.open(gateway.page('one'))));
  }
  for (const page of pages) await until('the page is live', 30, async () => (await page.state()) === 'live');
  const players = (await netsim.clients()).map(({ client }) => client).slice(studio.length);
  assert.equal(players.length, pages.length, 'links of players');
  const links = async (clients, settings) => {
    for (const client of clients) await netsim.command(`client ${client} ${settings}`);
  };
  const table = { gateway, publisher, pages };

  const wrong = [];
  const fault = async (name, cause, inject) => {
    const before = await settled(table);
    await inject();
    const after = await settled(table);
    wrong.push(...judged(t, name, cause, before, after));
  };
  await fault('no fault', undefined, () => measureFor(6));
  // What is asked for again does not reach who has it: nothing is repaired.
  const unrepaired = async (clients, asking, inject) => {
    await links(clients, `${asking} blackout=on`);
    await inject();
    await links(clients, `${asking} blackout=off`);
  };
  await fault('packets lost on the way in', 'ingest_loss', () => unrepaired(studio, 'down', async () => {
    await links(studio, 'up loss=3%');
    await measureFor(10);
    await links(studio, 'up loss=0');
  }));
  await fault('blackouts on the way in', 'ingest_loss', () => unrepaired(studio, 'down', async () => {
    for (const seconds of [0.3, 0.7, 0.3, 0.7]) {
      await links(studio, 'up blackout=on');
      await measureFor(seconds);
      await links(studio, 'up blackout=off');
      await measureFor(2);
    }
  }));
  await fault('packets lost on the way out', 'network', async () => {
    // Reports take the way that is dark: they have to come now and then.
    for (let n = 0; n < 3; n += 1) {
      await unrepaired(players, 'up', async () => {
        await links(players, 'down loss=3%');
        await measureFor(4);
        await links(players, 'down loss=0');
      });
      await measureFor(3);
    }
  });
  await fault('blackouts on the way out', 'network', async () => {
    // Longer than from keyframe to keyframe: some frames never come, and some are repaired when the picture has moved on.
    for (let n = 0; n < 8; n += 1) {
      await links(players, 'down blackout=on');
      await measureFor(2.5);
      await links(players, 'down blackout=off');
      await measureFor(3);
    }
  });
  await fault('a slow decoder', 'decoder', async () => {
    await slowed(t, processor, pages.at(-1));
    processor.free();
  });
  const made = await Promise.all(pages.map(async (page) => (await page.latest()).made));
  assert.deepEqual(made, pages.map(() => 1), 'each page kept its connection');
  assert(wrong.length === 0, wrong.join('; '));
}

/** Takes processor time from a player's browser, no more than makes its decoder too slow, until enough frames are lost there. */
async function slowed(t, processor, page) {
  const dropped = async () => (await page.latest()).video.framesDropped;
  const first = await dropped();
  for (const share of SHARES) {
    processor.limit(share);
    const before = await dropped();
    await measureFor(4);
    const more = await dropped() - before;
    t.measure(`with ${share} of a core, frames dropped in 4 s`, more);
    if (more > PICTURE.fps) break;
  }
  await until('the slow decoder has lost enough', 60, async () => await dropped() - first > 2 * LEAST_LOST);
}

async function read({ gateway, publisher, pages }) {
  const latest = await Promise.all(pages.map((page) => page.latest()));
  const sent = publisher.framesSent;
  const metrics = await gateway.metrics();
  const dropped = (cause) => metrics.sum('tableside_frames_total', { table: 'one', outcome: 'dropped', cause });
  return {
    sent,
    players: latest.map(({ video }) => video),
    causes: Object.fromEntries(CAUSES.map((cause) => [cause, dropped(cause)])),
    reports: metrics.sum('tableside_player_reports_total', { table: 'one' }),
  };
}

/** Waits until the ledger has stood still for five reports of each player. @returns the numbers then */
async function settled(table) {
  let since;
  const { value } = await until('the ledger stands still', 60, async () => {
    const now = await read(table);
    if (JSON.stringify(now.causes) !== JSON.stringify(since?.causes)) since = now;
    return now.reports >= since.reports + 5 * table.pages.length && now;
  }, { everyMs: 200 });
  // Publisher and players are not read at one moment, and the publisher says ten times a second what it has sent.
  const behind = table.pages.map(() => []);
  for (let n = 0; n < 20; n += 1) {
    const { sent, players } = await read(table);
    players.forEach(({ framesDecoded }, player) => behind[player].push(sent - framesDecoded));
    await measureFor(0.03);
  }
  return { ...value, behind: behind.map((each) => percentile(each, 50)) };
}

/** Compares the ledger with what publisher and players say. @returns what is wrong */
function judged(t, name, cause, before, after) {
  const grown = (of) => of(after) - of(before);
  const sent = grown((at) => at.sent) * after.players.length;
  const causes = Object.fromEntries(CAUSES.map((key) => [key, grown((at) => at.causes[key])]));
  const each = after.behind.map((behind, player) => behind - before.behind[player]);
  const total = (counts) => counts.reduce((sum, count) => sum + count, 0);
  const [lost, counted] = [total(each), total(Object.values(causes))];
  const found = Object.entries(causes).filter(([, count]) => count > 0).map(([key, count]) => `${key} ${count}`).join(', ');
  const [first, last] = [before, after].map(({ players }) => players);
  const of = (key) => last.map((player, n) => player[key] - first[n][key]).join('+');
  t.measure(name, `${sent} sent, ${lost} lost (${each.join(' and ')}); ledger: ${counted}, ${found || 'nothing'}`);
  t.measure(`${name}, as the players say`, ['framesReceived', 'framesDecoded', 'framesDropped', 'packetsLost', 'pliCount', 'freezeCount'].map((key) => `${key} ${of(key)}`).join(', '));

  const wrong = [];
  const expect = (holds, what) => holds || wrong.push(`${name}: ${what}`);
  const mostOff = Math.max(MOST_OFF * lost, UNEVEN * each.length);
  expect(Math.abs(counted - lost) <= mostOff, `${counted} frames on the ledger, ${lost} lost`);
  expect(causes.unknown <= MOST_UNKNOWN * sent, `${causes.unknown} of ${sent} frames lost without a cause`);
  if (!cause) return wrong;
  t.measure(`${name}, at ${cause}`, (100 * causes[cause]) / lost, '%');
  expect(lost >= LEAST_LOST, `${lost} frames lost, too few to tell`);
  const right = causes[cause] >= LEAST_SHARE * Math.max(lost, counted - mostOff);
  expect(right, `${causes[cause]} of ${lost} lost frames at ${cause}; the ledger has ${found}`);
  return wrong;
}
