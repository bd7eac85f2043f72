// The health check of the container: exits with 0 if the server in it answers /healthz with 200, else with 1.
// The flags of the server are not known here, so that it asks by HTTP first, and by TLS if that brings no response. The
// certificate is not checked: it names the host that clients know, and this is the way from a container to itself.
import { get } from 'node:http';
import { get as getByTls } from 'node:https';

const url = process.env.FILETRACKER_HEALTH_URL || 'http://127.0.0.1:9999/healthz';
const timeoutMs = 2500;

/** The status of the response; undefined if there is none. */
function statusOf(scheme) {
  const target = new URL(url.replace(/^https?:/, `${scheme}:`));
  const ask = scheme === 'https' ? getByTls : get;
  return new Promise((resolve) => {
    const request = ask(target, { agent: false, rejectUnauthorized: false }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    request.on('error', () => resolve(undefined));
  });
}

setTimeout(() => process.exit(1), timeoutMs).unref();
const schemes = url.startsWith('https:') ? ['https'] : ['http', 'https'];
let status;
for (const scheme of schemes) status ??= await statusOf(scheme);
process.exit(status === 200 ? 0 : 1);
