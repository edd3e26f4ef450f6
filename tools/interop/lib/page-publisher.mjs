// A publisher that runs in a browser's page: what the drivers of all such publishers share.

/** `leave` runs in the page and ends the session by DELETE. */
export function browserPublisher(browser, page, leave) {
  return {
    /** The size it encodes now: it starts small and grows with what its bandwidth estimate allows. */
    picture: () => page.evaluate(encoded),
    offer: () => page.evaluate(() => globalThis.interopRecorder.posts.at(-1).offer),
    async stop() {
      await page.evaluate(leave);
      await browser.shut(page);
    },
  };
}

/** Runs in the page. */
async function encoded() {
  const report = await globalThis.interopRecorder.connections.at(-1).getStats();
  const video = [...report.values()].find(({ type, kind }) => type === 'outbound-rtp' && kind === 'video');
  return { width: video?.frameWidth ?? 0, height: video?.frameHeight ?? 0 };
}
