// Debian's Firefox with the same player as Chromium. It has no H.264 as long as no plug-in is downloaded.

import { PagePlayer } from '../../lib/page-player.mjs';

export const name = 'firefox';
export const title = 'Firefox ESR';
export const product = 'Firefox ESR';
export const decodes = ['VP8', 'VP9', 'AV1'];

export const version = async ({ firefox }) => (await firefox.version()).split('/').at(-1);

export function player({ firefox, gateway }) {
  return new PagePlayer({
    open: () => firefox.openPeers(gateway.url('/')),
    shut: (page) => firefox.shut(page),
    begin: (endpoint) => globalThis.interop.watch(endpoint, { deadlineMs: 60_000 }),
    end: () => globalThis.interop.leaveAll(),
  });
}
