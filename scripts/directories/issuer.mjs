// An OpenID Connect issuer (oidc-provider): tokens by client credentials, JWTs for the resource that is asked for.
// node issuer.mjs PORT KEYS-FILE. A resource https://p2pmodel.test/AUDIENCE/ALGORITHM/SECONDS says how its tokens are made.
import { readFileSync } from 'node:fs';
import Provider from 'oidc-provider';

const [port, keysFile] = process.argv.slice(2);
const provider = new Provider(`http://127.0.0.1:${port}`, {
  jwks: JSON.parse(readFileSync(keysFile, 'utf8')),
  clients: [{
    client_id: 'trainer', client_secret: 'secret-of-the-trainer',
    grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
  }],
  extraTokenClaims: () => ({ groups: ['ml', 'research'] }),
  enabledJWA: { userinfoSigningAlgValues: ['RS256', 'PS256', 'ES256', 'Ed25519', 'EdDSA'] },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo(ctx, resource) {
        const [audience, alg, seconds] = new URL(resource).pathname.slice(1).split('/');
        return {
          audience, scope: 'read', accessTokenFormat: 'jwt', accessTokenTTL: Number(seconds), jwt: { sign: { alg } },
        };
      },
    },
  },
});
provider.listen(Number(port), '127.0.0.1', () => console.log('listening'));
