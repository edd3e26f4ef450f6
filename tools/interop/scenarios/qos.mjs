import assert from 'node:assert/strict';

import { PlayerPage } from '../lib/player-page.mjs';
import { studioBehindNetsim } from '../lib/studio.mjs';
import { until } from '../lib/until.mjs';

export const about = 'the player page reports how it plays: losses and freezes are counted, the ratios fall while nothing gets through, and rise again';

const PLAYERS = 2;

export async function run(t) {
  const { gateway, netsim } = await studioBehindNetsim(t);
  const browser = await t.chromium();
  const others = (await netsim.clients()).length;
  const pages = [];
  for (let n = 0; n < PLAYERS; n += 1) pages.push(new PlayerPage(await browser.open(gateway.page('one'))));
  for (const page of pages) await until('the page is live', 20, async () => (await page.state()) === 'live');
  const read = async () => {
    const metrics = await gateway.metrics();
    return (name) => metrics.sum(`tableside_${name}`, { table: 'one' });
  };

  const { value: well } = await until('both report, and see everything', 30, async () => {
    const of = await read();
    return of('player_reports_total') >= 4 * PLAYERS && of('fps_ratio') > 0.97 && of('bitrate_ratio') > 0.97 && of;
  });
  t.measure('without loss: fps ratio, bitrate ratio', `${well('fps_ratio').toFixed(3)}, ${well('bitrate_ratio').toFixed(3)}`);

  // Of all but the publisher: of players that come back on another link as well.
  const links = async (settings, undone) => {
    await netsim.command(`down ${settings}`);
    for (let client = 0; client < others; client += 1) await netsim.command(`client ${client} down ${undone}`);
  };
  await links('loss=50%', 'loss=0');
  const { value: badly } = await until('losses and freezes are counted', 30, async () => {
    const of = await read();
    return of('player_packets_lost_total') > 100 && of('player_freeze_seconds_total') > 1 && of;
  });
  assert(badly('player_freezes_total') > 0, 'freezes');
  t.measure('half is lost and repaired: fps ratio', badly('fps_ratio').toFixed(3));
  assert(badly('player_jitter_buffer_seconds_count') > 0 && badly('player_round_trip_seconds_count') > 0, 'histograms');

  await links('loss=0 blackout=on', 'blackout=off');
  const { seconds } = await until('the ratios have fallen', 30, async () => {
    const of = await read();
    return of('fps_ratio') < 0.5 && of('bitrate_ratio') < 0.5;
  });
  t.measure('nothing gets through: until the ratios are below a half', seconds, 's');

  await netsim.command('both blackout=off');
  const { value: again } = await until('the ratios are back', 40, async () => {
    const of = await read();
    const more = of('player_reports_total') > badly('player_reports_total') + 4 * PLAYERS;
    return more && of('fps_ratio') > 0.97 && of('bitrate_ratio') > 0.97 && of;
  });
  t.measure('frames missed in all', again('player_frames_missed_total'));
}
