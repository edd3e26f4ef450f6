// A share of the machine's processor time for one program and its children: a control group, of version 1 or 2. Gone at the end.

import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { until } from './until.mjs';

const ROOT = '/sys/fs/cgroup';
/** Short, so that nothing stands still for long at a time. In microseconds. */
const PERIOD = 20_000;
const GONE_WITHIN = 5;

/** What the two versions call it. A quota of `none` takes the limit away. */
const VERSION_1 = {
  parent: join(ROOT, 'cpu'),
  none: -1,
  limit: (folder, quota) => {
    writeFileSync(join(folder, 'cpu.cfs_period_us'), String(PERIOD));
    writeFileSync(join(folder, 'cpu.cfs_quota_us'), String(quota));
  },
};
const VERSION_2 = {
  parent: ROOT,
  none: 'max',
  limit: (folder, quota) => writeFileSync(join(folder, 'cpu.max'), `${quota} ${PERIOD}`),
};

export class Processor {
  #version;
  #folder;

  /** Made, and removed at the end of the scenario, after the programs in it have ended. Needs root. */
  static make(t) {
    if (process.getuid() !== 0) throw new Error('needs root: it makes a control group');
    const processor = new Processor(t.folder);
    t.defer(() => processor.#remove());
    return processor;
  }

  constructor(folder) {
    this.folder = folder;
    this.#version = existsSync(join(ROOT, 'cgroup.controllers')) ? VERSION_2 : VERSION_1;
    if (this.#version === VERSION_2) writeFileSync(join(ROOT, 'cgroup.subtree_control'), '+cpu');
    this.#folder = join(this.#version.parent, `tableside-${process.pid}`);
    mkdirSync(this.#folder);
  }

  /** A program that runs `program` within the group. */
  program(program) {
    const file = join(this.folder, `limited-${program.split('/').at(-1)}`);
    writeFileSync(file, `#!/bin/sh\necho $$ > ${this.#folder}/cgroup.procs\nexec ${program} "$@"\n`, { mode: 0o755 });
    return file;
  }

  /** All of them together get so much of one core. */
  limit(share) {
    this.#version.limit(this.#folder, Math.round(share * PERIOD));
  }

  /** As much as there is. */
  free() {
    this.#version.limit(this.#folder, this.#version.none);
  }

  async #remove() {
    await until('the control group is empty', GONE_WITHIN, () => readFileSync(join(this.#folder, 'cgroup.procs'), 'utf8') === '');
    rmdirSync(this.#folder);
  }
}
