// A NAT in front of a UDP port: who sends to it appears at the other side with a port of the relay's, and with another
// one after `rebind`.

import { createSocket } from 'node:dgram';

export class UdpRelay {
  #clients = new Map();

  /** Listens at `listen` and passes on to `target`, both `{ address, port }`. */
  static async open(listen, target) {
    const relay = new UdpRelay(target);
    await new Promise((resolve, reject) => {
      relay.front.once('error', reject);
      relay.front.bind(listen.port, listen.address, resolve);
    });
    return relay;
  }

  constructor(target) {
    this.target = target;
    this.front = createSocket('udp4');
    this.front.on('message', (message, from) => {
      this.#binding(from).send(message, target.port, target.address);
    });
  }

  /** The socket by which a client is known to the target. */
  #binding(client) {
    const key = `${client.address}:${client.port}`;
    let socket = this.#clients.get(key);
    if (!socket) {
      socket = createSocket('udp4');
      socket.on('message', (message) => this.front.send(message, client.port, client.address));
      this.#clients.set(key, socket);
    }
    return socket;
  }

  /** Who has a binding: `address:port` of each. */
  clients() {
    return [...this.#clients.keys()];
  }

  /** Forgets the bindings of these clients: what the target sends to the old ports goes nowhere from now on. */
  rebind(clients) {
    for (const client of clients) {
      this.#clients.get(client)?.close();
      this.#clients.delete(client);
    }
  }

  close() {
    this.rebind(this.clients());
    this.front.close();
  }
}
