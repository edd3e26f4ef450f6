// The Prometheus text format, as much of it as the scenarios ask about.

const SAMPLE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+\d+)?$/;
const LABEL = /([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g;

export class Metrics {
  #samples;

  /** @param {string} text what `/metrics` answered */
  constructor(text) {
    this.#samples = text.split('\n').filter((line) => line && !line.startsWith('#')).map(parseSample);
  }

  /**
   * The sum of the samples of `name` that carry all of `labels`.
   *
   * @throws if there is no sample of that name at all: a renamed metric must not read as 0
   */
  sum(name, labels = {}) {
    const named = this.#samples.filter((sample) => sample.name === name);
    if (named.length === 0) throw new Error(`/metrics has no ${name}`);
    return named
      .filter((sample) => Object.entries(labels).every(([key, value]) => sample.labels[key] === value))
      .reduce((sum, sample) => sum + sample.value, 0);
  }

  /** The samples of these names that are not zero, as they stand in the text. @param {RegExp} names */
  nonZero(names) {
    return this.#samples.filter(({ name, value }) => names.test(name) && value !== 0).map(({ line }) => line);
  }
}

function parseSample(line) {
  const match = SAMPLE.exec(line);
  if (!match) throw new Error(`not a line of the Prometheus text format: ${line}`);
  const labels = Object.fromEntries([...(match[2] ?? '').matchAll(LABEL)].map(([, key, value]) => [key, unescape(value)]));
  return { name: match[1], labels, value: Number(match[3].replace('Inf', 'Infinity')), line };
}

function unescape(value) {
  return value.replace(/\\(.)/g, (_, char) => (char === 'n' ? '\n' : char));
}
