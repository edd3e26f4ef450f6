// Chromium with a WHEP player of the text's own minimum (page/peers.js), in a page of the gateway's.

import { PagePlayer } from '../../lib/page-player.mjs';

export const name = 'chromium';
export const title = 'Chromium';
export const product = 'Chromium';
export const decodes = ['H264', 'VP8', 'VP9', 'AV1'];

export const version = ({ home }) => home.version();

export function player({ home, gateway }) {
  return new PagePlayer({
    open: () => home.openPeers(gateway.url('/')),
    shut: (page) => home.shut(page),
    begin: (endpoint) => globalThis.interop.watch(endpoint, { deadlineMs: 60_000 }),
    end: () => globalThis.interop.leaveAll(),
  });
}
