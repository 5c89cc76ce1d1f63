// oidc-provider as the authorization server of an MCP server: `node oidc_provider.mjs PORT RESOURCE`. Users sign in with
// its forms for development. MODULES is the folder of the packages.
import { pathToFileURL } from "node:url";

const [port, resource] = process.argv.slice(2);
const { Provider } = await import(pathToFileURL(`${process.env.MODULES}/oidc-provider/lib/index.js`));
const provider = new Provider(`http://127.0.0.1:${port}`, {
  findAccount: (_context, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  features: {
    registration: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (_context, named) => {
        if (named !== resource) throw new Error("another resource");
        return { scope: "read", audience: resource, accessTokenTTL: 2, accessTokenFormat: "jwt" };
      },
    },
  },
  scopes: ["openid", "offline_access", "read"],
  pkce: { required: () => true },
  rotateRefreshToken: () => true,
  issueRefreshToken: async () => true,
});
provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
