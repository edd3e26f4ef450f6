// What is on the wire, by tshark.

import assert from 'node:assert/strict';
import { join } from 'node:path';

import { Child } from './process.mjs';
import { TSHARK } from './tools.mjs';
import { until } from './until.mjs';

const FIELDS = ['ip.dsfield.dscp', 'ipv6.tclass.dscp', 'udp.payload', 'tcp.payload'];

/** Captures what matches a capture filter on a device, until it is closed. */
export class Capture {
  /** One entry a packet: its DSCP and the octets behind the UDP or TCP header. @type {{ dscp: number, payload: Buffer }[]} */
  packets = [];

  static async start(t, device, filter, name = 'capture') {
    assert(process.getuid() === 0, 'needs root: it captures packets');
    const capture = new Capture(t, device, filter, name);
    t.defer(() => capture.stop());
    // It says so on its standard error, once the device is open.
    await until('tshark captures', 15, () => {
      assert(!capture.child.ended, `tshark ended: ${capture.child.output()}`);
      return /Capturing on/.test(capture.child.output());
    });
    return capture;
  }

  constructor(t, device, filter, name) {
    const fields = FIELDS.flatMap((field) => ['-e', field]);
    const args = ['-l', '-n', '-i', device, '-f', filter, '-T', 'fields', '-E', 'separator=;', '-E', 'occurrence=f', ...fields];
    this.child = new Child(TSHARK, args, join(t.folder, `${name}.log`), (line) => this.#take(line));
  }

  #take(line) {
    const [ipv4, ipv6, udp, tcp] = line.split(';');
    const payload = Buffer.from((udp || tcp || '').replaceAll(':', ''), 'hex');
    if (payload.length > 0) this.packets.push({ dscp: Number(ipv4 || ipv6), payload });
  }

  async stop() {
    if (!this.child.ended) await this.child.end('SIGINT', 10);
  }
}
