// A web server in front of the gateway, as a load balancer is: it passes requests on, or redirects offers elsewhere.

import { createServer, request } from 'node:http';

export class Front {
  /** What was asked here: `{ method, path, authorization, ifMatch, origin }`, and the `status` of the answer once there is one. */
  requests = [];

  /** Listens on a free port. With `redirectTo`, another front, POSTs are answered 307 with a ticket in the URL. */
  static async before(gateway, { redirectTo } = {}) {
    const front = new Front();
    front.server = createServer((incoming, response) => front.#answer(incoming, response, gateway.ports.http, redirectTo));
    await new Promise((resolve) => front.server.listen(0, '127.0.0.1', resolve));
    return front;
  }

  url(path) {
    return `http://127.0.0.1:${this.server.address().port}${path}`;
  }

  /** Those by a method, so many as there were. */
  by(method) {
    return this.requests.filter((made) => made.method === method);
  }

  close() {
    this.server.closeAllConnections?.();
    return new Promise((resolve) => this.server.close(resolve));
  }

  #answer(incoming, response, port, redirectTo) {
    const { method, url: path, headers } = incoming;
    const { authorization, 'if-match': ifMatch, origin } = headers;
    const made = { method, path, authorization, ifMatch, origin };
    this.requests.push(made);
    if (redirectTo && method === 'POST') {
      incoming.resume();
      made.status = 307;
      const joint = path.includes('?') ? '&' : '?';
      response.writeHead(307, { Location: `${redirectTo.url(path)}${joint}ticket=for-one`, 'Access-Control-Allow-Origin': '*' }).end();
      return;
    }
    // The Host header goes along, so that the gateway's Location is a URL of this front.
    const onward = request({ host: '127.0.0.1', port, method, path, headers }, (answer) => {
      made.status = answer.statusCode;
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    incoming.pipe(onward);
  }
}
