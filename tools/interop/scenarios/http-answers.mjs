import assert from 'node:assert/strict';

import { offer } from '../lib/offers.mjs';

export const about = 'each kind of bad request gets its documented status and problem document';

const SDP = { 'Content-Type': 'application/sdp' };
const NO_SESSION = '0'.repeat(32);

export async function run(t) {
  const gateway = await t.demo();
  const ask = (method, path, { headers, body } = {}) => fetch(gateway.url(path), { method, headers, body, redirect: 'manual' });
  const post = (path, body, headers = SDP) => ask('POST', path, { headers, body });
  const player = offer({ direction: 'recvonly' });

  await refused('a body that is not SDP', post('/whep/demo', 'hello'), 400);
  await refused('no body', post('/whep/demo', ''), 400);
  await refused('another content type', post('/whep/demo', player, { 'Content-Type': 'application/json' }), 415);
  await refused('no codec in common', post('/whep/demo', offer({ direction: 'recvonly', video: 'H263' })), 422);
  await refused('a player that wants to send', post('/whep/demo', offer({ direction: 'sendonly' })), 422);
  await refused('a publisher that wants to receive', post('/whip/fresh', player), 422);
  await refused('an offer without end', post('/whep/demo', `${player}${'a=x\r\n'.repeat(20_000)}`), 413);
  await refused('a name that is no table', post('/whep/no%20table', player), 404);
  await refused('an unknown page', ask('GET', '/nothing/here'), 404);
  await refused('an unknown session', ask('DELETE', `/whep/demo/${NO_SESSION}`), 404);
  await refused('a session that is no session', ask('DELETE', '/whep/demo/none'), 404);
  await refused('/metrics in public', ask('GET', '/metrics'), 404);

  const notLive = await refused('a table that is not live', post('/whep/not-live', player), 409);
  assert.match(notLive.headers.get('Retry-After') ?? '', /^\d+$/, 'Retry-After of a table that is not live');
  await refused('a table that is published already', post('/whip/demo', offer({ direction: 'sendonly' })), 409);
  for (const path of ['/whep/demo', '/whip/demo']) {
    const put = await refused(`PUT ${path}`, ask('PUT', path), 405);
    assert.match(put.headers.get('Allow') ?? '', /POST/, 'Allow');
  }

  for (const method of ['GET', 'HEAD']) {
    const response = await ask(method, '/whep/demo');
    assert.equal(response.status, 200, `${method} on an endpoint`);
    assert.match(response.headers.get('Content-Type') ?? '', /^application\/sdp/);
    assert.equal(await response.text(), '', `${method} on an endpoint has no body`);
  }

  const preflight = await ask('OPTIONS', '/whep/demo', {
    headers: {
      Origin: 'https://casino.example',
      'Access-Control-Request-Method': 'POST',
      'Access-Control-Request-Headers': 'content-type,authorization,if-match',
    },
  });
  assert(preflight.ok, `OPTIONS answered ${preflight.status}`);
  assert.match(preflight.headers.get('Accept-Post') ?? '', /application\/sdp/);
  assert.match(preflight.headers.get('Access-Control-Allow-Methods') ?? '', /POST.*DELETE|DELETE.*POST/);
  assert.match(preflight.headers.get('Access-Control-Allow-Headers') ?? '', /authorization/i);

  const created = await post('/whep/demo', player, { ...SDP, Origin: 'https://casino.example' });
  assert.equal(created.status, 201, await created.clone().text());
  assert.match(created.headers.get('ETag') ?? '', /^"[^"]+"$/, 'a strong ETag');
  for (const header of ['Location', 'ETag', 'Link', 'Retry-After']) {
    assert.match(created.headers.get('Access-Control-Expose-Headers') ?? '', new RegExp(header, 'i'));
  }
  const session = new URL(created.headers.get('Location') ?? '', created.url);
  assert.match(session.pathname, /^\/whep\/demo\/[0-9a-f]{32}$/);
  assert.equal((await ask('DELETE', session.pathname)).status, 200, 'DELETE');
  await refused('a session that has ended', ask('DELETE', session.pathname), 404);
  await gateway.sessionsAre({ players: 0 }, 5);
}

/** An RFC 9457 problem document with a type of ours and the status of the response. */
async function refused(what, asked, status) {
  const response = await asked;
  const text = await response.text();
  assert.equal(response.status, status, `${what}: ${text.slice(0, 300)}`);
  assert.match(response.headers.get('Content-Type') ?? '', /^application\/problem\+json/, what);
  const problem = JSON.parse(text);
  assert.equal(typeof problem.type, 'string', `${what}: type`);
  assert.equal(problem.status, status, `${what}: status in the document`);
  assert(problem.title?.length > 0, `${what}: title`);
  return response;
}
