// A picture that moves everywhere, for encoders that are to need the bits they are given: a wheel with a pattern of chance
// turns, larger than what is seen of it.

(() => {
  /** The pattern's cells along a side: smaller ones take more bits. */
  const CELLS = 16;
  const TURN_SECONDS = 4;

  /** The same at each run. */
  function pattern() {
    const canvas = new OffscreenCanvas(CELLS, CELLS);
    const context = canvas.getContext('2d');
    const image = context.createImageData(CELLS, CELLS);
    let state = 1;
    for (let i = 0; i < image.data.length; i += 1) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      image.data[i] = i % 4 === 3 ? 255 : state >>> 24;
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  /** A video track of it, which is shown in the page as well. */
  function track({ width, height, frameRate }) {
    const canvas = document.createElement('canvas');
    Object.assign(canvas, { width, height });
    document.body.append(canvas);
    const context = canvas.getContext('2d', { alpha: false, willReadFrequently: true });
    const wheel = pattern();
    const side = Math.hypot(width, height);
    const [video] = canvas.captureStream(0).getVideoTracks();
    video.contentHint = 'motion';
    const begin = performance.now();
    setInterval(() => {
      const turns = (performance.now() - begin) / 1000 / TURN_SECONDS;
      context.setTransform(1, 0, 0, 1, width / 2, height / 2);
      context.rotate(2 * Math.PI * turns);
      context.drawImage(wheel, -side / 2, -side / 2, side, side);
      video.requestFrame();
    }, 1000 / frameRate);
    return video;
  }

  globalThis.interopWheel = { track };
})();
