// Chromium's fake camera and microphone, each of its codecs in turn the first of the offer, by the WHIP publisher of
// page/studio.js.

import { browserPublisher } from '../../lib/page-publisher.mjs';

const TITLES = { H264: 'H.264', VP8: 'VP8', VP9: 'VP9', AV1: 'AV1' };

export const publishers = Object.entries(TITLES).map(([codec, title]) => ({
  name: `chromium-${codec.toLowerCase()}`,
  title: `Chromium, ${title}`,
  product: 'Chromium',
  codec,
  version: ({ studio }) => studio.version(),
  publish: (stage, endpoint, token) => publish(stage, endpoint, token, codec),
}));

async function publish({ studio, gateway, picture: { width, height, fps } }, endpoint, token, codec) {
  const page = await studio.openStudio(gateway.url('/'));
  const options = { video: `video/${codec}`, token, picture: { width, height, frameRate: fps } };
  await page.evaluate(([url, how]) => globalThis.interopStudio.publish(url, how), [endpoint, options]);
  return browserPublisher(studio, page, () => globalThis.interopStudio.leave(0));
}
