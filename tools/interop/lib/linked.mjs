// A Chromium player whose way to the gateway is a link of the emulator, which changes while it plays.

import { SHOWN } from './chromium.mjs';
import { now } from './shown.mjs';

/**
 * Watches table `one` over a link of `delay` each way that carries `down` to the player. `extension` is a header extension that
 * the player asks for.
 *
 * `set` gives the link other conditions, and says when; `read` and `frames` are the player's statistics and what it has shown; `watch`
 * is one more player of the same page, by its endpoint, and says its number for `frames`.
 */
export async function watchLinked(gateway, netsim, browser, { delay, down, extension }) {
  const joined = (await netsim.clients()).length;
  const page = await browser.openPeers(gateway.url('/'));
  await page.evaluate(SHOWN);
  const watch = async (endpoint) => (await page.evaluate(async ([where, uri]) => {
    const watched = await globalThis.interop.watch(where, { extension: uri });
    globalThis.interopShown.keep(watched.peer);
    return watched;
  }, [endpoint, extension])).peer;
  const peer = await watch(gateway.whep('one'));
  const links = (await netsim.clients()).slice(joined).map(({ client }) => client);
  const set = async (conditions) => {
    for (const link of links) await netsim.command(`client ${link} down ${conditions}`);
    return now();
  };
  for (const link of links) await netsim.command(`client ${link} both ${delay}`);
  await set(down);
  const read = () => page.evaluate((number) => globalThis.interop.stats(number), peer);
  const frames = (of = peer) => page.evaluate((number) => globalThis.interopShown.frames(number), of);
  return { page, read, frames, set, watch };
}

/** Frames for players of table `one` that the ledger has as dropped for want of bandwidth. */
export async function leftOut(gateway) {
  return (await gateway.metrics()).sum('tableside_frames_total', { table: 'one', outcome: 'dropped', cause: 'congestion' });
}
