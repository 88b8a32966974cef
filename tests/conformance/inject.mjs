// Loaded into the suite with NODE_OPTIONS="--import …/inject.mjs": adds `Authorization: Bearer $BEARER`
// to every request that the suite makes, since the suite itself cannot send headers.
import { createRequire } from 'node:module';

const require = createRequire(process.env.CONFORMANCE_SUITE);
const value = `Bearer ${process.env.BEARER}`;

const plainFetch = globalThis.fetch;
globalThis.fetch = (input, init = {}) => {
  const headers = new Headers(init.headers ?? (input instanceof Request ? input.headers : undefined));
  if (!headers.has('authorization')) headers.set('authorization', value);
  return plainFetch(input, { ...init, headers });
};

const { getGlobalDispatcher, setGlobalDispatcher } = require('undici');
const mentions = (headers) => JSON.stringify(headers ?? {}).toLowerCase().includes('"authorization"');
setGlobalDispatcher(getGlobalDispatcher().compose((dispatch) => (options, handler) => {
  let { headers } = options;
  if (!mentions(headers)) {
    headers = Array.isArray(headers) ? [...headers, 'authorization', value] : { ...(headers ?? {}), authorization: value };
  }
  return dispatch({ ...options, headers }, handler);
}));

const http = require('node:http');
const plainRequest = http.request;
http.request = function (...args) {
  for (const options of args) {
    if (!options || typeof options !== 'object' || options instanceof URL) continue;
    if (mentions(options.headers)) continue;
    options.headers = Array.isArray(options.headers)
      ? [...options.headers, 'authorization', value]
      : { ...(options.headers ?? {}), authorization: value };
  }
  return plainRequest.apply(this, args);
};
