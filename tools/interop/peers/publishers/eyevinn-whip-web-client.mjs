// npm `@eyevinn/whip-web-client` in Chromium. It asks by OPTIONS whether it may trickle, and names no codec: the first
// of Chromium's that the gateway takes is VP8.

import { packageVersion } from '../../lib/npm-server.mjs';
import { browserPublisher } from '../../lib/page-publisher.mjs';

const PACKAGE = '@eyevinn/whip-web-client';

export const publishers = [
  {
    name: 'eyevinn-whip-web-client',
    title: `\`${PACKAGE}\` in Chromium`,
    product: `\`${PACKAGE}\``,
    codec: 'VP8',
    version: () => packageVersion(PACKAGE),
    publish,
  },
];

async function publish({ studio, clients, picture: { width, height, fps } }, endpoint, token) {
  const page = await studio.openPeers(clients.origin);
  await page.evaluate(ingest, [endpoint, token, { width, height, frameRate: fps }]);
  return browserPublisher(studio, page, () => globalThis.client.destroy());
}

/** Runs in the page. */
async function ingest([endpoint, authkey, video]) {
  const { WHIPClient } = (await import('/commonjs/@eyevinn/whip-web-client')).default;
  const media = await navigator.mediaDevices.getUserMedia({ audio: true, video });
  globalThis.client = new WHIPClient({ endpoint, opts: { authkey, iceServers: [] } });
  await globalThis.client.ingest(media);
}
