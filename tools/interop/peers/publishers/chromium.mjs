// Chromium's fake camera and microphone, in each of its codecs, by the WHIP publisher of page/peers.js.

import { browserPublisher } from '../../lib/page-publisher.mjs';

const TITLES = { H264: 'H.264', VP8: 'VP8', VP9: 'VP9', AV1: 'AV1' };

const NOT_FORWARDED = { why: 'the gateway does not forward this codec yet.', says: /no-common-codec/ };

export const publishers = Object.entries(TITLES).map(([codec, title]) => ({
  name: `chromium-${codec.toLowerCase()}`,
  title: `Chromium, ${title}`,
  product: 'Chromium',
  codec,
  version: ({ studio }) => studio.version(),
  publish: (stage, endpoint, key) => publish(stage, endpoint, key, codec),
  ...(['VP9', 'AV1'].includes(codec) ? { cannot: NOT_FORWARDED } : {}),
}));

async function publish({ studio, gateway, picture: { width, height, fps } }, endpoint, key, codec) {
  const page = await studio.openPeers(gateway.url('/'));
  await page.evaluate(([url, options]) => globalThis.interop.publish(url, options), [
    endpoint,
    { key, codec, width, height, frameRate: fps },
  ]);
  return browserPublisher(studio, page, () => globalThis.interop.leaveAll());
}
