// The product's own pages as a person uses them: the one place that knows what stands where on them.

/** What the player page at `/play/{table}` says and shows. Works with pages of either browser. */
export class PlayerPage {
  constructor(page) {
    this.page = page;
  }

  /** The player's state as the page declares it, in `data-state`: `live`, `paused`, `unplayable` … (sdk/player.js). */
  async state() {
    return this.page.evaluate(() => document.querySelector('[data-state]')?.dataset.state);
  }

  /** Taps for sound, as a person has to: browsers start a page muted. Playwright only. */
  async turnSoundOn() {
    await this.page.getByRole('button', { name: 'Tap for sound' }).click();
  }

  /** Whether the picture moves on and its sound is switched on and turned up. */
  async isAudible() {
    return this.page.evaluate(() => {
      const video = document.querySelector('video');
      return !video.paused && !video.muted && video.volume > 0;
    });
  }

  /** All the text that a person sees. */
  async text() {
    return this.page.evaluate(() => document.body.innerText.replace(/\s+/g, ' '));
  }

  /** Statistics of the page's newest connection: see page/recorder.js. */
  async latest() {
    return this.page.evaluate(() => globalThis.interopRecorder.latest());
  }
}
