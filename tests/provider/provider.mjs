// A certified OpenID provider (npm oidc-provider) for tests: node provider.mjs PORT.
// Prints "ready ISSUER".  Keys come from the environment variable JWKS, so that a test can rotate them.
import { createServer } from 'node:http';
import { createLocalJWKSet, importJWK, jwtVerify, SignJWT } from 'jose';
import { Provider } from 'oidc-provider';

const port = Number(process.argv[2]);
const issuer = `http://127.0.0.1:${port}`;
const jwks = JSON.parse(process.env.JWKS);
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const JAG = 'urn:ietf:params:oauth:token-type:id-jag';
const SCOPES = 'mcp:read mcp:write mcp:delete mcp:execute mcp:send mcp:pay';
const client = (id, more) => ({
  client_id: id, client_secret: `${id}-secret-of-the-tests`, redirect_uris: [], response_types: [],
  grant_types: ['client_credentials', EXCHANGE], id_token_signed_response_alg: 'ES256', ...more,
});

const provider = new Provider(issuer, {
  jwks,
  clients: [
    client('invoice-service'),
    client('planner'),
    client('worker', { dpop_bound_access_tokens: false }),
    client('desktop', {
      client_secret: undefined, token_endpoint_auth_method: 'none', application_type: 'native',
      grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'],
      redirect_uris: ['http://127.0.0.1/callback'],
    }),
    client('exeat', { grant_types: [], introspection: true }),
  ],
  scopes: [...SCOPES.split(' '), 'openid', 'offline_access'],
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  issueRefreshToken: (ctx, by) => by.grantTypeAllowed('refresh_token'),
  pkce: { required: () => true },
  cookies: { keys: ['only for tests'] },
  ttl: { ClientCredentials: 600, AccessToken: 600, Session: 600, Grant: 600, Interaction: 600, RefreshToken: 600, IdToken: 600 },
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    registration: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true },
    dPoP: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (ctx, resource) => ({
        scope: SCOPES, audience: resource,
        accessTokenFormat: resource.endsWith('/opaque') ? 'opaque' : 'jwt',
        accessTokenTTL: 600, jwt: { sign: { alg: 'ES256' } },
      }),
    },
  },
  findAccount: (ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  extraTokenClaims: (ctx) => (ctx?.state?.act ? { act: ctx.state.act } : undefined),
});

const own = createLocalJWKSet({ keys: jwks.keys.map(({ d, ...key }) => key) });

// RFC 8693: the client acts with what it was given; who acted before stays in `act`.
provider.registerGrantType(EXCHANGE, async (ctx) => {
  const { client: by, params } = ctx.oidc;
  const { payload } = await jwtVerify(params.subject_token, own, { issuer });
  if (params.requested_token_type === JAG) {
    const jwk = jwks.keys[jwks.keys.length - 1];
    const assertion = await new SignJWT({
      sub: payload.sub, client_id: params.known_there_as, resource: params.resource, scope: params.scope, jti: crypto.randomUUID(),
    }).setProtectedHeader({ alg: 'ES256', typ: 'oauth-id-jag+jwt', kid: jwk.kid })
      .setIssuer(issuer).setAudience(params.audience).setIssuedAt().setExpirationTime('5m')
      .sign(await importJWK(jwk, 'ES256'));
    ctx.body = { access_token: assertion, issued_token_type: JAG, token_type: 'N_A', expires_in: 300 };
    return;
  }
  const before = payload.act ?? (payload.client_id === payload.sub ? undefined : { sub: payload.client_id });
  ctx.state.act = { sub: by.clientId, ...(before ? { act: before } : {}) };
  const token = new provider.AccessToken({
    accountId: payload.sub, client: by, scope: params.scope ?? payload.scope, gty: 'token_exchange', grantId: 'exchanged',
  });
  token.resourceServer = new provider.ResourceServer(params.resource, {
    scope: SCOPES, audience: params.resource, accessTokenFormat: 'jwt', accessTokenTTL: 300, jwt: { sign: { alg: 'ES256' } },
  });
  ctx.body = {
    access_token: await token.save(), expires_in: token.expiration, token_type: 'Bearer',
    issued_token_type: 'urn:ietf:params:oauth:token-type:access_token', scope: token.scope,
  };
}, ['subject_token', 'subject_token_type', 'actor_token', 'actor_token_type', 'requested_token_type', 'audience', 'resource', 'scope', 'known_there_as']);

provider.on('server_error', (ctx, error) => console.error(error));
createServer(provider.callback()).listen(port, '127.0.0.1', () => console.log(`ready ${issuer}`));
