// Reads the frame number that tools/demo-clip burns into the picture; timecode.py there is the other half.

(() => {
  /** In a picture 1280 pixels wide: sixteen squares side by side along the upper edge. */
  const STRIP = { pictureWidth: 1280, left: 384, side: 32, squares: 16 };
  const FRAMES = 300;
  const FPS = 30;
  /** White and black must lie further apart, or there is no strip in the picture. */
  const CONTRAST = 100;

  /** The frame number for sixteen bits, `undefined` where a check fails. */
  function frameNumber(bits) {
    const gray = bits.slice(2, 11);
    const ones = gray.reduce((sum, bit) => sum + bit, 0);
    const inverted = gray.slice(5).every((bit, i) => bits[11 + i] === 1 - bit);
    if (bits[0] !== 1 || bits[1] !== 0 || !inverted || bits[15] !== ones % 2) return undefined;
    let bit = 0;
    const number = gray.reduce((value, next) => {
      bit ^= next;
      return (value << 1) | bit;
    }, 0);
    return number < FRAMES ? number : undefined;
  }

  /** The frame number in RGBA pixels of the strip alone, `side` pixels high. */
  function decode(rgba, side) {
    const means = Array.from({ length: STRIP.squares }, (_, i) => innerMean(rgba, side, i));
    if (means[0] - means[1] < CONTRAST) return undefined;
    const threshold = (means[0] + means[1]) / 2;
    return frameNumber(means.map((mean) => Number(mean > threshold)));
  }

  /** The mean green of the inner quarter of square `i`: the squares are grey, so any channel does. */
  function innerMean(rgba, side, i) {
    const [from, to] = [side / 4, (3 * side) / 4];
    let sum = 0;
    for (let y = from; y < to; y += 1) {
      for (let x = from; x < to; x += 1) sum += rgba[4 * (y * side * STRIP.squares + i * side + x) + 1];
    }
    return sum / (to - from) ** 2;
  }

  /** The frame number that a video element shows now, or that of a VideoFrame. */
  function read(video) {
    const { side, squares, left, pictureWidth } = STRIP;
    const scale = (video.videoWidth ?? video.displayWidth) / pictureWidth;
    const canvas = document.createElement('canvas');
    canvas.width = side * squares;
    canvas.height = side;
    const context = canvas.getContext('2d', { willReadFrequently: true });
    context.drawImage(video, left * scale, 0, side * squares * scale, side * scale, 0, 0, canvas.width, side);
    return decode(context.getImageData(0, 0, canvas.width, side).data, side);
  }

  /** The sixteen bits for a frame number, as timecode.py makes them. */
  function bitsOf(number) {
    const code = number ^ (number >> 1);
    const gray = Array.from({ length: 9 }, (_, i) => (code >> (8 - i)) & 1);
    return [1, 0, ...gray, ...gray.slice(5).map((bit) => 1 - bit), gray.reduce((sum, bit) => sum + bit, 0) % 2];
  }

  /** Burns a number below `FRAMES` into a picture 1280 pixels wide. */
  function draw(context, number) {
    for (const [i, bit] of bitsOf(number).entries()) {
      context.fillStyle = bit ? '#fff' : '#000';
      context.fillRect(STRIP.left + STRIP.side * i, 0, STRIP.side, STRIP.side);
    }
  }

  /** How many milliseconds clip frame `a` is ahead of `b`, the shorter way round the loop. */
  function aheadMs(a, b) {
    const frames = (((a - b) % FRAMES) + FRAMES + FRAMES / 2) % FRAMES - FRAMES / 2;
    return (frames / FPS) * 1000;
  }

  globalThis.interopClock = { STRIP, FRAMES, decode, draw, read, aheadMs };
})();
