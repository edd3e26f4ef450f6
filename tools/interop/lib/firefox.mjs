// Debian's Firefox ESR, headless, over WebDriver BiDi. It decodes VP8 and no H.264 as long as no plug-in is downloaded.

import puppeteer from 'puppeteer-core';

import { PEERS, PICTURE, RECORDER } from './chromium.mjs';
import { FIREFOX } from './tools.mjs';

const PREFERENCES = {
  'media.autoplay.default': 0,
  'media.peerconnection.ice.loopback': true,
  'media.gmp-manager.updateEnabled': false,
};

export class Firefox {
  static async launch() {
    const browser = await puppeteer.launch({
      browser: 'firefox',
      executablePath: FIREFOX,
      headless: true,
      extraPrefsFirefox: PREFERENCES,
    });
    return new Firefox(browser);
  }

  constructor(browser) {
    this.browser = browser;
    /** @type {import('puppeteer-core').Page[]} */
    this.pages = [];
  }

  /** As `Chromium.open`. */
  async open(url) {
    const page = await this.browser.newPage();
    this.pages.push(page);
    await page.evaluateOnNewDocument(RECORDER);
    await page.goto(url);
    return page;
  }

  /** A page of the origin of `url` with `interop.watch` (see page/peers.js) and `interopPicture`. */
  async openPeers(url) {
    const page = await this.open(url);
    await page.evaluate(PEERS);
    await page.evaluate(PICTURE);
    return page;
  }

  /** Closes a page that `open` returned. */
  async shut(page) {
    this.pages = this.pages.filter((other) => other !== page);
    await page.close();
  }

  /** As in `Firefox/153.0`. */
  version() {
    return this.browser.version();
  }

  async close() {
    await this.browser.close();
  }
}
