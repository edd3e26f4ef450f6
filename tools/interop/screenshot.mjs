// The picture in the README: the player page in the middle of a round, with a round behind it.

import { existsSync } from 'node:fs';
import { join } from 'node:path';

import { bettingIsOpen } from './lib/bets.mjs';
import { PlayerPage } from './lib/player-page.mjs';
import { Scenario, runScenario } from './lib/scenario.mjs';
import { CHROMIUM, ROOT } from './lib/tools.mjs';
import { until } from './lib/until.mjs';

for (const [path, how] of [[Scenario.defaultBinary, 'cargo build --release'], [CHROMIUM ?? '', 'tools/setup']]) {
  if (existsSync(path)) continue;
  console.error(`tools/screenshot: ${path || 'chromium'} is missing: ${how}`);
  process.exit(2);
}

const scenario = {
  about: 'takes docs/player.jpg',
  timeLimitSeconds: 90,
  async run(t) {
    const gateway = await t.demo();
    const browser = await t.chromium();
    const page = await browser.open(gateway.url('/play/demo'));
    const player = new PlayerPage(page);
    await until('the page is live', 10, async () => (await player.state()) === 'live');
    await player.turnSoundOn();
    for (let round = 0; round < 2; round += 1) {
      await bettingIsOpen(page);
      for (const spot of ['red', 'odd', 'high']) await page.click(`#spots [data-spot=${spot}]`);
      await until('the outcomes are there', 10, async () => (await page.$$('#slip [data-status=accepted]')).length === 3 * (round + 1));
      if (round === 0) await until('the round is over', 30, async () => (await page.$$('#rounds li')).length > 0);
    }
    await page.screenshot({ path: join(ROOT, 'docs/player.jpg'), type: 'jpeg', quality: 80 });
  },
};
process.exit((await runScenario('screenshot', scenario, Scenario.defaultBinary)) ? 1 : 0);
