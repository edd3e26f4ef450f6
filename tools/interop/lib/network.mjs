// A network of the run's own: a namespace for clients, and a cable from there to here. Nothing else is on it, so that a
// scenario may close, capture and renumber as it likes. Gone at the end, after a failure too.

import { execFileSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const PREFIX = 'tableside-';

/** Namespaces whose run is over; theirs was killed before it could tidy up. */
function leftBehind() {
  return run('ip', ['-o', 'netns', 'list'])
    .split('\n')
    .map((line) => line.split(' ')[0])
    .filter((name) => name.startsWith(PREFIX) && !existsSync(`/proc/${name.slice(PREFIX.length)}`));
}

export class Network {
  /** Addresses of this end, where the gateway is, and of the client's end. */
  gateway = addresses(1);
  client = addresses(2);

  #namespace = `${PREFIX}${process.pid}`;
  #onExit = () => this.remove();

  /** This end of the cable. */
  device = `ts${process.pid}`;

  /** Made, and removed at the end of the scenario. Needs root. */
  static make(t) {
    if (process.getuid() !== 0) throw new Error('needs root: it makes a network namespace');
    leftBehind().forEach((name) => attempt('ip', ['netns', 'delete', name]));
    const network = new Network(t.folder);
    process.on('exit', network.#onExit);
    t.defer(() => network.remove());
    network.#build();
    return network;
  }

  constructor(folder) {
    this.folder = folder;
  }

  #build() {
    const [inside, peer] = [this.#namespace, `${this.device}c`];
    run('ip', ['netns', 'add', inside]);
    run('ip', ['link', 'add', this.device, 'type', 'veth', 'peer', 'name', peer, 'netns', inside]);
    const link = (at, address, side) => {
      at('ip', ['address', 'add', `${address.ipv4}/30`, 'dev', side]);
      at('ip', ['address', 'add', `${address.ipv6}/64`, 'dev', side, 'nodad']);
      at('ip', ['link', 'set', side, 'up']);
    };
    const atClient = (command, args) => this.#run(command, args);
    atClient('ip', ['link', 'set', 'lo', 'up']);
    link(run, this.gateway, this.device);
    link(atClient, this.client, peer);
    // Browsers offer the addresses of the interface that leads to the world.
    atClient('ip', ['route', 'add', 'default', 'via', this.gateway.ipv4]);
    atClient('ip', ['-6', 'route', 'add', 'default', 'via', this.gateway.ipv6]);
  }

  /**
   * What runs a command at the client's end. `ip netns exec` would do more, a mount namespace and /sys, which nobody here
   * needs and which fails where the root directory is no mount point, as in a chroot.
   */
  get #enter() {
    return ['nsenter', `--net=/var/run/netns/${this.#namespace}`];
  }

  /** Runs a command at the client's end. */
  #run(command, args) {
    const [nsenter, ...where] = this.#enter;
    return run(nsenter, [...where, command, ...args]);
  }

  /** Drops what the client sends and matches this nft expression, such as `meta l4proto udp`. */
  drop(match) {
    const rules = `table inet tableside { chain out { type filter hook output priority 0; ${match} drop; }; }`;
    this.#run('nft', [rules]);
  }

  /** Drops nothing any more. */
  open() {
    this.#run('nft', ['flush ruleset']);
  }

  /** A program that runs `program` at the client's end. */
  program(program) {
    const file = join(this.folder, `at-client-${program.split('/').at(-1)}`);
    writeFileSync(file, `#!/bin/sh\nexec ${this.#enter.join(' ')} ${program} "$@"\n`, { mode: 0o755 });
    return file;
  }

  remove() {
    process.off('exit', this.#onExit);
    attempt('ip', ['link', 'delete', this.device]);
    attempt('ip', ['netns', 'delete', this.#namespace]);
  }
}

/** Of a network for each process: of RFC 2544's for tests, and a unique local one (RFC 4193). */
function addresses(host) {
  const { pid } = process;
  return {
    ipv4: `198.18.${(pid >> 6) & 255}.${4 * (pid & 63) + host}`,
    ipv6: `fd98:7ab1:e51d:${(pid & 0xffff).toString(16)}::${host}`,
  };
}

function run(command, args) {
  try {
    return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], env: withAdministrators() });
  } catch (error) {
    throw new Error(`${command} ${args.join(' ')}: ${String(error.stderr ?? error.message).trim()}`);
  }
}

/** What may be gone already. */
function attempt(command, args) {
  try {
    run(command, args);
  } catch {
    // It is.
  }
}

/** nft is in /usr/sbin, which is not on everybody's path. */
function withAdministrators() {
  return { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
}
